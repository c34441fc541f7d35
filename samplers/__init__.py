"""From noise to data: solvers of the ODE dX = v dt and of the SDEs dX = (v + w/2 score) dt + sqrt(w) dW.

A velocity field is all that a sampler needs; `SDE` adds a path and a w(t), of which there are some here (`Constant`,
`Sigma`, `SineSquared`, `KL`) and any function is one. `ClassifierFree` guides a network, `Counted` counts its calls,
`Keyed` makes the noise of a sample a function of its number.
"""

from . import philox as philox
from .counted import Counted as Counted
from .diffusion import KL as KL
from .diffusion import Constant as Constant
from .diffusion import Sigma as Sigma
from .diffusion import SineSquared as SineSquared
from .euler import Euler as Euler
from .euler_maruyama import EulerMaruyama as EulerMaruyama
from .guidance import ClassifierFree as ClassifierFree
from .heun import Heun as Heun
from .mean import Mean as Mean
from .noise import Keyed as Keyed
from .noise import white as white
from .one_step import OneStep as OneStep
from .protocols import Diffusion as Diffusion
from .protocols import Field as Field
from .protocols import NoiseSource as NoiseSource
from .protocols import Solver as Solver
from .sample import sample as sample
from .sde import SDE as SDE
