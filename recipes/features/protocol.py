"""The interface of feature extractors: `Extractor` and its result, `Features`."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Features:
    """The features of images, on the device of the images.

    Args:
        pooled: (B, D) float32; for the Frechet distance, precision and recall, and the kernel distance.
        spatial: (B, D') float32; for sFID.
        probs: (B, K) float32, whose rows sum to 1; for the Inception score.
    """

    pooled: Tensor
    spatial: Tensor | None = None
    probs: Tensor | None = None


class Extractor(Protocol):
    """Maps images to features, and names the metrics that are computed from them.

    The features of an image do not depend, beyond rounding, on the other images of the batch.

    An extractor may have a method `sizes(image) -> (D, D')`, which returns the number of pooled and spatial features of
    images (C, H, W). Whether the memory suffices for their statistics is then checked before the first image.
    """

    @property
    def name(self) -> str:
        """The name of the extractor in reports and manifests."""
        ...

    @property
    def frechet(self) -> str:
        """The name of the Frechet distance of pooled features."""
        ...

    @property
    def kernel(self) -> str:
        """The name of the kernel distance of pooled features."""
        ...

    @property
    def sha256(self) -> str:
        """The sha256 of the file of weights, hexadecimal; "none" if there is none.

        Raises:
            UserError: the file is not available.
        """
        ...

    def __call__(self, pixels: Tensor, /) -> Features:
        """Return the features of images (B, C, H, W) uint8, C = 1 or 3, computed on their device.

        Raises:
            ValueError: the pixels are of another shape or dtype.
            UserError: on the first call, if the weights are not available, or are not the expected ones.
        """
        ...


def check(pixels: Tensor) -> Tensor:
    """Return the pixels, after checking that they are (B, 1 or 3, H, W) uint8.

    Raises:
        ValueError: they are not.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise ValueError(f"expected pixels (B, 1 or 3, H, W) uint8, got {tuple(pixels.shape)} {pixels.dtype}")
    return pixels


def in_colour(pixels: Tensor) -> Tensor:
    """Convert pixels to (B, 3, H, W) uint8: grey becomes three equal channels.

    Raises:
        ValueError: `pixels` are not (B, 1 or 3, H, W) uint8.
    """
    return check(pixels).expand(-1, 3, -1, -1)
