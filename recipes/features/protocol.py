"""What evaluation asks of an extractor of features."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Features:
    """The features of images, on the device of the images.

    Args:
        pooled: (B, D) float32; of the Frechet distance, precision and recall, and the kernel distance.
        spatial: (B, D') float32; of sFID.
        probs: (B, K) float32, rows that sum to 1; of the Inception score.
    """

    pooled: Tensor
    spatial: Tensor | None = None
    probs: Tensor | None = None


class Extractor(Protocol):
    """A function from images to features, and what its numbers are called.

    The features of an image do not depend, beyond rounding, on the others of its batch.

    It may have a method `sizes(image) -> (D, D')`, which says how many pooled and spatial features it makes of images
    (C, H, W): then it is known before the first image whether there is memory for their statistics.
    """

    @property
    def name(self) -> str:
        """What stands in reports and manifests."""
        ...

    @property
    def frechet(self) -> str:
        """What the Frechet distance of pooled features is called."""
        ...

    @property
    def kernel(self) -> str:
        """What the kernel distance of pooled features is called."""
        ...

    @property
    def sha256(self) -> str:
        """Of the file of weights, hexadecimal; "none" if there is none.

        Raises:
            UserError: the file cannot be had.
        """
        ...

    def __call__(self, pixels: Tensor, /) -> Features:
        """Return the features of images (B, C, H, W) uint8, C = 1 or 3, computed on their device.

        Raises:
            ValueError: for other pixels.
            UserError: at the first call: the weights cannot be had, or are others.
        """
        ...


def check(pixels: Tensor) -> Tensor:
    """Return pixels, if they are (B, 1 or 3, H, W) uint8.

    Raises:
        ValueError: they are not.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise ValueError(f"pixels (B, 1 or 3, H, W) uint8 are wanted, not {tuple(pixels.shape)} {pixels.dtype}")
    return pixels


def in_colour(pixels: Tensor) -> Tensor:
    """Return pixels, (B, 3, H, W) uint8: grey becomes three equal channels.

    Raises:
        ValueError: `pixels` are not (B, 1 or 3, H, W) uint8.
    """
    return check(pixels).expand(-1, 3, -1, -1)
