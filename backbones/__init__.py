"""Networks (x, t, y) -> output.

- `SiT` is the transformer of the paper. `sit_s`, `sit_b`, `sit_l` and `sit_xl` build its published sizes.
- `DiT` is the Diffusion Transformer, on discrete timesteps.
- `load_sit`, `load_dit` and `load_repa` load released weights. `state_dict` reads the weights of any network.
- `MLP` is a small network for points in few dimensions.
- `Mixture` is a Gaussian mixture, with exact velocity, score, noise and data prediction along any path.
  `MixtureBridge` has those of a two-sided path between two mixtures.

Networks do not depend on paths, objectives or samplers. The objective defines what the output of a network means.
"""

from .dit import DiT as DiT
from .dit import dit as dit
from .loading import load_dit as load_dit
from .loading import load_repa as load_repa
from .loading import load_sit as load_sit
from .mixture import Mixture as Mixture
from .mixture_bridge import MixtureBridge as MixtureBridge
from .mlp import MLP as MLP
from .protocols import Backbone as Backbone
from .sit import SiT as SiT
from .sizes import sit_b as sit_b
from .sizes import sit_l as sit_l
from .sizes import sit_s as sit_s
from .sizes import sit_xl as sit_xl
from .state_dicts import state_dict as state_dict
