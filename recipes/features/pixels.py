"""Pixels as features, without a network."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .protocol import Features, check


@dataclass(frozen=True)
class Pixels:
    """Pixels / 255, flattened: D = C H W. For small images, and where no network is available."""

    name: ClassVar[str] = "pixels"
    frechet: ClassVar[str] = "Frechet distance of pixels"
    kernel: ClassVar[str] = "kernel distance of pixels"
    sha256: ClassVar[str] = "none"

    def sizes(self, image: tuple[int, int, int], /) -> tuple[int, int]:
        """Return the number of pooled and of spatial features."""
        return math.prod(image), 0

    def __call__(self, pixels: Tensor, /) -> Features:
        """Return pixels (B, C, H, W) uint8 as features."""
        return Features(check(pixels).flatten(1).float() / 255)
