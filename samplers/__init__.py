"""From noise to data: solvers of the ODE dX = v dt and of the SDEs dX = (v + w/2 score) dt + sqrt(w) dW.

A velocity field is all that a sampler needs; `SDE` adds a path and a w(t), of which there are some here (`Constant`,
`Sigma`, `SineSquared`, `RaisedCosine`, `KL`, `KLEta`) and any function is one.

| | one step at a time | last step | from torchdiffeq and torchsde |
| --- | --- | --- | --- |
| ODE | `Euler`, `Midpoint`, `Heun`, `RK4`, `DDIM` | `Euler`, `Tweedie` | `adaptive` |
| SDE | `EulerMaruyama`, `StochasticHeun`, `Ancestral`, `LearnedAncestral` | `Mean`, `Tweedie` | `sdeint` |

For few calls there is `plan`: `Exponential`, a solver of ODE and SDE that looks back, and times from `grids`.

`log_likelihood` gives densities (`bits_per_dimension` of images), `reparametrise` reads a field along another path,
`ClassifierFree` and `Autoguidance` guide a network, `Counted` counts its calls. `initial_noise` and `Keyed` make the
noise of a sample a function of its number, and `Brownian` that of one path however fine the grid. `solve_each` solves
the ODE with steps of its own for each sample, and drops those that are done from the batch of a `RowField`, as
`Conditional` is. `check` proves a w(t) of one's own, `measured_order` a solver; `at` asks a field as solvers here do.

All solvers carry states in float32 at least and return x's dtype, work alike in every grad mode, and say which time
cannot be used and what to do. A field may say where it is discontinuous (`jumps`): adaptive solvers, `plan` and
`log_likelihood` stop there.
"""

from . import grids as grids
from . import philox as philox
from .adaptive import adaptive as adaptive
from .ancestral import Ancestral as Ancestral
from .ancestral import LearnedAncestral as LearnedAncestral
from .autoguidance import Autoguidance as Autoguidance
from .bits import bits_per_dimension as bits_per_dimension
from .bits import dequantise as dequantise
from .brownian import Brownian as Brownian
from .conditional import Conditional as Conditional
from .counted import Counted as Counted
from .ddim import DDIM as DDIM
from .diffusion import KL as KL
from .diffusion import Constant as Constant
from .diffusion import RaisedCosine as RaisedCosine
from .diffusion import Sigma as Sigma
from .diffusion import SineSquared as SineSquared
from .divergence import Divergence as Divergence
from .divergence import Exact as Exact
from .divergence import Hutchinson as Hutchinson
from .euler import Euler as Euler
from .euler_maruyama import EulerMaruyama as EulerMaruyama
from .exponential import Exponential as Exponential
from .guidance import ClassifierFree as ClassifierFree
from .heun import Heun as Heun
from .kl_eta import KLEta as KLEta
from .laws import check as check
from .laws import measured_order as measured_order
from .likelihood import Likelihood as Likelihood
from .likelihood import log_likelihood as log_likelihood
from .likelihood import standard_normal as standard_normal
from .mean import Mean as Mean
from .midpoint import Midpoint as Midpoint
from .noise import Keyed as Keyed
from .noise import initial_noise as initial_noise
from .noise import white as white
from .one_step import OneStep as OneStep
from .one_step import StochasticStep as StochasticStep
from .one_step import at as at
from .plan import Plan as Plan
from .plan import plan as plan
from .precision import column as column
from .protocols import Diffusion as Diffusion
from .protocols import Field as Field
from .protocols import NoiseSource as NoiseSource
from .protocols import RowField as RowField
from .protocols import Solver as Solver
from .reparametrise import reparametrise as reparametrise
from .rk4 import RK4 as RK4
from .sample import sample as sample
from .sde import SDE as SDE
from .sdeint import sdeint as sdeint
from .solve_each import solve_each as solve_each
from .stochastic_heun import StochasticHeun as StochasticHeun
from .tweedie import Tweedie as Tweedie
