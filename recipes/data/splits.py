"""Splits of images into training and held-out images."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .fingerprint import cache_key, fingerprint
from .images import Images, NoiseFunction


def stratified_mask(labels: np.ndarray, fraction: float) -> np.ndarray:
    """Return the mask (N,) of the training images: a fraction of every class, and at least one image of each.

    The mask depends only on the labels (N,) and the fraction, not on the seed of a run.

    Raises:
        ValueError: the fraction is not between 0 and 1, or no image remains to hold out.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"split must lie between 0 and 1, got {fraction}")
    training = np.zeros(len(labels), dtype=bool)
    order = np.argsort(labels, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        shuffled = np.random.default_rng(0).permutation(members)
        training[shuffled[: max(1, round(fraction * len(members)))]] = True
    if training.all():
        raise ValueError(f"split = {fraction} leaves none of {len(labels)} images to hold out: lower it")
    return training


@dataclass(frozen=True, eq=False)
class ImageSubset:
    """A subset of images: image k is `images[indices[k]]`, with indices (M,) int64."""

    images: Images
    indices: Tensor
    labels: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", self.images.labels[self.indices])

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of a state."""
        return self.images.shape

    def __len__(self) -> int:
        return len(self.indices)

    def states(self, batch: Tensor, flips: Tensor, noise: NoiseFunction, /) -> Tensor:
        """Return states, (B, C, H, W) float32."""
        return self.images.states(self.indices[batch], flips, noise)

    def read(self, batch: Tensor, /) -> Tensor:
        """Return pixels, (B, C, H, W) uint8."""
        return self.images.read(self.indices[batch])

    def fingerprint(self, batch: Tensor, sample: int, /) -> str | None:
        """Return the fingerprint of images (M,), or None if `images` has none."""
        return fingerprint(self.images, self.indices[batch], sample)

    def cache_key(self, batch: Tensor, /) -> str:
        """Return the cache key of images (M,)."""
        return cache_key(self.images, self.indices[batch])


def split_images(images: Images, heldout: Images | None, split: float | Literal["none"]) -> tuple[Images, Images]:
    """Return training and held-out images.

    Args:
        images: the images to train on, or to split.
        heldout: separate images to hold out, or None.
        split: the fraction of `images` to train on, the rest being held out; `none` to train on all of them.

    Raises:
        ValueError: both are given, the fraction is invalid, or the held-out images are of another shape.
    """
    if heldout is not None:
        if split != "none":
            raise ValueError("heldout and split both hold images out: give only one of them")
        if heldout.shape != images.shape:
            raise ValueError(f"heldout images have the shape {heldout.shape}, and the training images {images.shape}")
        return images, heldout
    if split == "none":
        return images, ImageSubset(images, torch.zeros(0, dtype=torch.int64))
    training = torch.from_numpy(stratified_mask(images.labels.numpy(), split))
    return ImageSubset(images, training.nonzero()[:, 0]), ImageSubset(images, (~training).nonzero()[:, 0])
