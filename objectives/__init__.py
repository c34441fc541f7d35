"""What a network learns, and how its output is read.

`Matching` is regression of one quantity (`Velocity`, `Noise`, `Score` or `Data`) along a path, its error measured in
the same or another one, with a weight over time (`weights`). Losses are pure: data, noise and times are arguments.
"""

from . import weights as weights
from .matching import Matching as Matching
from .protocols import Field as Field
from .protocols import Objective as Objective
from .quantities import Data as Data
from .quantities import Noise as Noise
from .quantities import Quantity as Quantity
from .quantities import Score as Score
from .quantities import Velocity as Velocity
