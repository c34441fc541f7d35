"""Networks (x, t, y) -> output.

`SiT` is the transformer of the paper, in the published sizes `sit_s`, `sit_b`, `sit_l`, `sit_xl`; `load_sit`,
`load_dit` and `load_repa` read released weights, and `state_dict` those of any network; `MLP` serves points in the
plane, and `Mixture` is data of which every field is known. A network knows nothing of paths, objectives or samplers:
what its output means is decided by the objective that trains it.
"""

from .dit import DiT as DiT
from .dit import dit as dit
from .files import state_dict as state_dict
from .loading import load_dit as load_dit
from .loading import load_repa as load_repa
from .loading import load_sit as load_sit
from .mixture import Mixture as Mixture
from .mlp import MLP as MLP
from .protocols import Backbone as Backbone
from .sit import SiT as SiT
from .sizes import sit_b as sit_b
from .sizes import sit_l as sit_l
from .sizes import sit_s as sit_s
from .sizes import sit_xl as sit_xl
