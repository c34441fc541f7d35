"""Networks (x, t, y) -> output.

`SiT` is the transformer of the paper, in the published sizes `sit_s`, `sit_b`, `sit_l`, `sit_xl`; `MLP` serves
points in the plane. A network knows nothing of paths, objectives or samplers: what its output means is decided
by the objective that trains it.
"""

from .mlp import MLP as MLP
from .protocols import Backbone as Backbone
from .sit import SiT as SiT
from .sizes import sit_b as sit_b
from .sizes import sit_l as sit_l
from .sizes import sit_s as sit_s
from .sizes import sit_xl as sit_xl
