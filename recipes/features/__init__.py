"""What a recipe's `evaluation.features` names: networks that make features of images.

| kind | pooled features (D) | spatial features | probabilities | needs |
| --- | --- | --- | --- | --- |
| `Pixels` | the pixels themselves | | | |
| `Inception` | 2048 | 2023 | 1008 | `sitkit[eval]`, and its weights |
| `DINOv2` | 384 to 1536 | | | a checkout of its code, and its weights |
| `EffNetLite0` | 1280 | | 1000 | `sitkit[effnet]`, which brings the weights |

An extractor of one's own is a class like these (`protocol.py`), `"package.module:Name"`. Nothing that they need is
imported here, and of these modules only those whose names are asked for: training needs none of the networks.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dinov2 import DINOv2 as DINOv2
    from .effnet import EffNetLite0 as EffNetLite0
    from .inception import Inception as Inception
    from .pixels import Pixels as Pixels
    from .protocol import Extractor as Extractor
    from .protocol import Features as Features

__all__ = ["DINOv2", "EffNetLite0", "Extractor", "Features", "Inception", "Pixels"]
_MODULES = dict(zip(__all__, ("dinov2", "effnet", "protocol", "protocol", "inception", "pixels"), strict=True))


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
