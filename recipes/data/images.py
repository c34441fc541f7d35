"""The interface of data: `Images`, which are read by index, and `Split`, training and held-out images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from ..support.digests import digest_of

NoiseFunction: TypeAlias = Callable[[tuple[int, ...]], Tensor]
"""Maps a shape (C, H, W) to standard normal noise (B, C, H, W), one row for each index of the batch."""


class Images(Protocol):
    """Images, or latents of images, by index from 0 to len - 1."""

    @property
    def labels(self) -> Tensor:
        """The class of each image, (N,) int64; zeros if there are no classes."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of a state, the input of the network."""
        ...

    def __len__(self) -> int: ...

    def states(self, indices: Tensor, flips: Tensor, noise: NoiseFunction, /) -> Tensor:
        """Return the states of a batch of images, (B, C, H, W) float32 on the CPU.

        Args:
            indices: (B,) int64, the images.
            flips: (B,) bool, which of them to flip horizontally.
            noise: returns noise, for states that are sampled, such as latents from their mean and standard deviation.
        """
        ...

    def read(self, indices: Tensor, /) -> Tensor:
        """Return the pixels of images (B,), (B, C, H, W) uint8, for image grids and metrics."""
        ...


class Fingerprints(Protocol):
    """Computes fingerprints and cache keys of images (see `fingerprint.py`)."""

    def fingerprint(self, indices: Tensor, sample: int, /) -> str:
        """Return the fingerprint of images (M,) int64, for which the content of at most `sample` files is read."""
        ...

    def cache_key(self, indices: Tensor, /) -> str:
        """Return the cache key of images (M,) int64."""
        ...


def to_states(pixels: Tensor) -> Tensor:
    """Convert pixels (N, C, H, W) uint8 to states in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_pixels(x: Tensor) -> Tensor:
    """Convert states in [-1, 1] to pixels, uint8, rounded to the nearest value."""
    return (127.5 * x + 128).clamp(0, 255).to(torch.uint8)


def read_all(images: Images) -> Tensor:
    """Return all images, (N, C, H, W) uint8."""
    return images.read(torch.arange(len(images)))


@dataclass(frozen=True, eq=False)
class InMemory:
    """Images (N, C, H, W) uint8 in memory, with labels (N,) int64. A state is the image's pixels, scaled to [-1, 1]."""

    pixels: Tensor
    labels: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of a state."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.pixels)

    def states(self, indices: Tensor, flips: Tensor, noise: NoiseFunction, /) -> Tensor:
        """Return states, (B, C, H, W) float32."""
        pixels = self.pixels[indices]
        return to_states(torch.where(flips[:, None, None, None], pixels.flip(-1), pixels) if flips.any() else pixels)

    def read(self, indices: Tensor, /) -> Tensor:
        """Return pixels, (B, C, H, W) uint8."""
        return self.pixels[indices]

    def fingerprint(self, indices: Tensor, sample: int, /) -> str:
        """Return the sha256 of all pixels of images (M,)."""
        return self.cache_key(indices)

    def cache_key(self, indices: Tensor, /) -> str:
        """Return the sha256 of the pixels of images (M,)."""
        return digest_of(self.pixels[indices])


@dataclass(frozen=True, eq=False)
class Split:
    """Training images, held-out images, and the function that decodes states to pixels.

    Args:
        training: the images to train on.
        heldout: the images to evaluate with; may be empty.
        classes: the names of the classes, by label; empty if there are no labels.
        decode: maps states (B, C, H, W) to pixels (B, C', H', W') uint8, on the device of the states.
        notes: lines to print before training or encoding: the number of images, and what was skipped.
    """

    training: Images
    heldout: Images
    classes: tuple[str, ...]
    decode: Callable[[Tensor], Tensor] = to_pixels
    notes: tuple[str, ...] = ()
