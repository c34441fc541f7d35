"""What training, sampling and evaluation ask of data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from ..support.digests import digest_of

NoiseFunction: TypeAlias = Callable[[tuple[int, ...]], Tensor]
"""From a shape (C, H, W) to standard normal noise (B, C, H, W), of the sample numbers that are being made."""


class Images(Protocol):
    """Images, or what stands for them, by number from 0 to len - 1."""

    @property
    def labels(self) -> Tensor:
        """The class of each, (N,) int64; zeros if there are no classes."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a state: of what the network sees."""
        ...

    def __len__(self) -> int: ...

    def states(self, numbers: Tensor, flips: Tensor, noise: NoiseFunction, /) -> Tensor:
        """Return states, (B, C, H, W) float32 on the CPU, of images (B,) int64.

        Args:
            numbers: which images.
            flips: (B,) bool, which of them are mirrored left to right.
            noise: for what is random beside that, such as the latents of an image.
        """
        ...

    def read(self, numbers: Tensor, /) -> Tensor:
        """Return the images (B,) themselves, (B, C, H, W) uint8, for pictures and measurements."""
        ...


class Fingerprints(Protocol):
    """What tells images from others (`fingerprint.py`)."""

    def fingerprint(self, numbers: Tensor, sample: int, /) -> str:
        """Return the fingerprint of images (M,) int64, of which the content of so many files is read at most."""
        ...

    def cache_key(self, numbers: Tensor, /) -> str:
        """Return the state of images (M,) int64."""
        ...


def to_states(pixels: Tensor) -> Tensor:
    """Return pixels (N, C, H, W) uint8 as states in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_pixels(x: Tensor) -> Tensor:
    """Return states as pixels, uint8, each rounded to the nearest."""
    return (127.5 * x + 128).clamp(0, 255).to(torch.uint8)


def read_all(images: Images) -> Tensor:
    """Return all images, (N, C, H, W) uint8."""
    return images.read(torch.arange(len(images)))


@dataclass(frozen=True, eq=False)
class InMemory:
    """Images (N, C, H, W) uint8 with labels (N,) int64, whose states are their pixels in [-1, 1]."""

    pixels: Tensor
    labels: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.pixels)

    def states(self, numbers: Tensor, flips: Tensor, noise: NoiseFunction, /) -> Tensor:
        """Return states, (B, C, H, W) float32."""
        pixels = self.pixels[numbers]
        return to_states(torch.where(flips[:, None, None, None], pixels.flip(-1), pixels) if flips.any() else pixels)

    def read(self, numbers: Tensor, /) -> Tensor:
        """Return the images, (B, C, H, W) uint8."""
        return self.pixels[numbers]

    def fingerprint(self, numbers: Tensor, sample: int, /) -> str:
        """Return the sha256 of the pixels of images (M,), all of them."""
        return self.cache_key(numbers)

    def cache_key(self, numbers: Tensor, /) -> str:
        """Return the sha256 of the pixels of images (M,)."""
        return digest_of(self.pixels[numbers])


@dataclass(frozen=True, eq=False)
class Split:
    """Images to train on and others to compare with, none perhaps, and how samples become pixels.

    Args:
        training: to train on.
        heldout: to compare with.
        classes: the names of the classes, by label; none if there are no labels.
        decode: from states (B, C, H, W) to pixels (B, C', H', W') uint8, on the device of the states.
        told: lines for whoever trains on the images or encodes them: how many there are, and what was left out.
    """

    training: Images
    heldout: Images
    classes: tuple[str, ...]
    decode: Callable[[Tensor], Tensor] = to_pixels
    notes: tuple[str, ...] = ()
