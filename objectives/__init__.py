"""What a network learns, and how its output is read.

`Matching` is regression of one quantity (`Velocity`, `Noise`, `Score` or `Data`) along a path, its error measured in
the same or another one, with a weight over time (`weights`); `Hybrid` is DiT's objective on a discrete chain. Losses
are pure: data, noise and times are arguments. Where those times come from (`Uniform`, `Stratified`, `LogitNormal`,
`Shifted`, `Grid`), and which noise goes with which data (`independent`, `OptimalTransport`), are functions of their
own. `usable_times` says where the velocity of a prediction is finite. `check` proves an objective of one's own; a
`LossCurve` says what training left.
"""

from . import weights as weights
from .couplings import OptimalTransport as OptimalTransport
from .couplings import independent as independent
from .ends import usable_times as usable_times
from .ends import usable_times_of as usable_times_of
from .hybrid import Hybrid as Hybrid
from .laws import check as check
from .loss_curve import LossCurve as LossCurve
from .matching import Matching as Matching
from .protocols import Coupling as Coupling
from .protocols import Field as Field
from .protocols import Objective as Objective
from .protocols import Times as Times
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
