"""Samplers: solvers of the ODE dX = v dt and of the SDEs dX = (v + w/2 score) dt + sqrt(w) dW.

All solvers take a velocity field. SDEs also take a path and a diffusion coefficient w(t): `Constant`, `Sigma`,
`SineSquared`, `RaisedCosine`, `KL`, `KLEta`, or any function t -> w(t) >= 0. `Window` is w in an interval of times, and
the ODE outside. `SDE.of` takes a function that returns velocity and score instead, such as that of a two-sided path.

| | one-step solvers | last steps | from torchdiffeq and torchsde |
| --- | --- | --- | --- |
| ODE | `Euler`, `Midpoint`, `Heun`, `RK4`, `DDIM` | `Euler`, `Tweedie` | `adaptive` |
| SDE | `EulerMaruyama`, `StochasticHeun`, `Ancestral`, `LearnedAncestral` | `Mean`, `Tweedie` | `sdeint` |
| both | `ExponentialEuler` | | |

`sample` runs a solver and returns the last state, and `trajectory` returns all states, with gradients.

- `plan` returns a solver and times for a small number of function evaluations (NFE): the multistep solver `Exponential`
  of ODE and SDE, on times of `grids`.
- `log_probs` returns the log-density of each step of a trajectory, for `EulerMaruyama`, `ExponentialEuler`, `Ancestral`
  and `LearnedAncestral`. Their method `transition` returns the mean and the standard deviation of a step.
- `solve_each` solves the ODE with separate adaptive steps for each sample.
- `log_likelihood` returns log-densities of data, and `bits_per_dimension` converts them for images.
- `reparametrise` converts a velocity field from one path to another.
- `ClassifierFree` and `Autoguidance` are guided fields. `Conditional` is a network with bound labels.
- `MomentMatching` is the velocity of the posterior given a linear observation, such as `Inpainting` or `Coarsening`.
  `Rewarded` follows the gradient of any log-likelihood. Both are fields, so every solver of the ODE takes them.
- `Counted` counts the NFE of a field.
- `initial_noise` and `Keyed` make the noise of a sample a function of its number. `Brownian` gives increments of the
  same Brownian motion for every grid of times.
- `check` tests a custom w(t), and `measured_order` measures the order of a custom solver. `at` evaluates a field in a
  custom solver.

All solvers carry states in float32 at least, return x's dtype and work in every grad mode. If a time cannot be used,
the error names the time and the remedy. A field may list its discontinuities in time in an attribute `jumps`, at which
adaptive solvers, `plan` and `log_likelihood` stop.
"""

from . import grids as grids
from . import philox as philox
from .adaptive import adaptive as adaptive
from .ancestral import Ancestral as Ancestral
from .ancestral import LearnedAncestral as LearnedAncestral
from .autoguidance import Autoguidance as Autoguidance
from .bits_per_dimension import bits_per_dimension as bits_per_dimension
from .bits_per_dimension import dequantise as dequantise
from .brownian import Brownian as Brownian
from .check import check as check
from .classifier_free import ClassifierFree as ClassifierFree
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
from .exponential_euler import ExponentialEuler as ExponentialEuler
from .heun import Heun as Heun
from .kl_eta import KLEta as KLEta
from .likelihood import Likelihood as Likelihood
from .likelihood import log_likelihood as log_likelihood
from .likelihood import standard_normal as standard_normal
from .mean import Mean as Mean
from .measured_order import measured_order as measured_order
from .midpoint import Midpoint as Midpoint
from .moment_matching import MomentMatching as MomentMatching
from .noise import Keyed as Keyed
from .noise import initial_noise as initial_noise
from .noise import white as white
from .one_step import OneStep as OneStep
from .one_step import StochasticStep as StochasticStep
from .one_step import at as at
from .operators import Coarsening as Coarsening
from .operators import Inpainting as Inpainting
from .plan import Plan as Plan
from .plan import plan as plan
from .protocols import Diffusion as Diffusion
from .protocols import Field as Field
from .protocols import NoiseSource as NoiseSource
from .protocols import RowField as RowField
from .protocols import ScoredField as ScoredField
from .protocols import Solver as Solver
from .reparametrise import reparametrise as reparametrise
from .rewarded import Rewarded as Rewarded
from .rk4 import RK4 as RK4
from .sample import sample as sample
from .sample import trajectory as trajectory
from .sde import SDE as SDE
from .sdeint import sdeint as sdeint
from .solve_each import solve_each as solve_each
from .states import column as column
from .stochastic_heun import StochasticHeun as StochasticHeun
from .transition import Transition as Transition
from .transition import TransitionStep as TransitionStep
from .transition import log_probs as log_probs
from .tweedie import Tweedie as Tweedie
from .window import Window as Window
