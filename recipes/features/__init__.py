"""Feature extractors for metrics: the classes that `evaluation.features` of a recipe names.

| kind | pooled features (D) | spatial features | probabilities | needs |
| --- | --- | --- | --- | --- |
| `Pixels` | the pixels themselves | | | |
| `Inception` | 2048 | 2023 | 1008 | `sitkit[eval]`, and its weights |
| `DINOv2` | 384 to 1536 | | | a checkout of its code, and its weights |
| `EffNetLite0` | 1280 | | 1000 | `sitkit[effnet]`, which brings the weights |

A custom extractor is a class with the interface of `protocol.py`, named as `"package.module:Name"`. Each module here is
imported when one of its names is used, since training needs none of the networks.
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
