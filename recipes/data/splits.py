"""Which images are trained on, and which are held out."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .fingerprint import cache_key, fingerprint
from .images import Images, NoiseFunction


def stratified_mask(labels: np.ndarray, share: float) -> np.ndarray:
    """Return which images to train on, (N,) bool: that share of every class, one image of it at least.

    It is a function of the labels (N,) alone: the same images whatever the seed of a run.

    Raises:
        ValueError: the share is no share, or nothing is left to hold out.
    """
    if not 0 < share < 1:
        raise ValueError(f"split must lie between 0 and 1, got {share}")
    training = np.zeros(len(labels), dtype=bool)
    order = np.argsort(labels, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        drawn = np.random.default_rng(0).permutation(members)
        training[drawn[: max(1, round(share * len(members)))]] = True
    if training.all():
        raise ValueError(f"split = {share} leaves none of {len(labels)} images to hold out: lower it")
    return training


@dataclass(frozen=True, eq=False)
class ImageSubset:
    """Some of other images: number k is their number `members[k]`, (M,) int64."""

    images: Images
    members: Tensor
    labels: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", self.images.labels[self.members])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a state."""
        return self.images.shape

    def __len__(self) -> int:
        return len(self.members)

    def states(self, numbers: Tensor, flips: Tensor, noise: NoiseFunction, /) -> Tensor:
        """Return states, (B, C, H, W) float32."""
        return self.images.states(self.members[numbers], flips, noise)

    def read(self, numbers: Tensor, /) -> Tensor:
        """Return the images, (B, C, H, W) uint8."""
        return self.images.read(self.members[numbers])

    def fingerprint(self, numbers: Tensor, sample: int, /) -> str | None:
        """Return the fingerprint of images (M,); None if the others have none."""
        return fingerprint(self.images, self.members[numbers], sample)

    def cache_key(self, numbers: Tensor, /) -> str:
        """Return the state of images (M,)."""
        return cache_key(self.images, self.members[numbers])


def split_images(images: Images, heldout: Images | None, split: float | Literal["none"]) -> tuple[Images, Images]:
    """Return what to train on and what to hold out: other images, a share of these, or none.

    Raises:
        ValueError: both are asked for, or the share is no share, or the others are of another shape.
    """
    if heldout is not None:
        if split != "none":
            raise ValueError("heldout and split: give one of them, the other holds images out already")
        if heldout.shape != images.shape:
            raise ValueError(f"heldout: images of {heldout.shape}, and those to train on are of {images.shape}")
        return images, heldout
    if split == "none":
        return images, ImageSubset(images, torch.zeros(0, dtype=torch.int64))
    training = torch.from_numpy(stratified_mask(images.labels.numpy(), split))
    return ImageSubset(images, training.nonzero()[:, 0]), ImageSubset(images, (~training).nonzero()[:, 0])
