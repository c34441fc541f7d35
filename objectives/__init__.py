"""Training objectives: losses, and conversions of network outputs to velocity fields.

- `Matching` regresses one quantity (`Velocity`, `Noise`, `Score` or `Data`) along a path. The error can be measured in
  another quantity and weighted over time (`weights`).
- `Bridging` regresses the drift and the noise of a two-sided path, from any source distribution.
- `Hybrid` is DiT's objective on a discrete chain.
- `Uniform`, `Stratified`, `LogitNormal`, `Shifted` and `Grid` are distributions of training times.
- `independent` and `OptimalTransport` are couplings of noise, or of a source, with data. `sources` are couplings
  that make the source of the data: masked, coarse or noisy images.
- `usable_times` returns the times at which the velocity of a prediction is finite.
- `LossCurve` is the error of a trained velocity as a function of time.
- `check` tests a custom objective.

Losses are pure functions of the model, the data, the noise and the times.
"""

from . import sources as sources
from . import weights as weights
from .bridging import Bridging as Bridging
from .check import check as check
from .couplings import OptimalTransport as OptimalTransport
from .couplings import independent as independent
from .hybrid import Hybrid as Hybrid
from .loss_curve import LossCurve as LossCurve
from .matching import Matching as Matching
from .protocols import Coupling as Coupling
from .protocols import Field as Field
from .protocols import Objective as Objective
from .protocols import ScoredField as ScoredField
from .protocols import Times as Times
from .protocols import TwoSidedObjective as TwoSidedObjective
from .protocols import Weight as Weight
from .quantities import Data as Data
from .quantities import Noise as Noise
from .quantities import Quantity as Quantity
from .quantities import Score as Score
from .quantities import Velocity as Velocity
from .times import Grid as Grid
from .times import LogitNormal as LogitNormal
from .times import Shifted as Shifted
from .times import Stratified as Stratified
from .times import Uniform as Uniform
from .usable_times import usable_times as usable_times
from .usable_times import usable_times_of as usable_times_of
