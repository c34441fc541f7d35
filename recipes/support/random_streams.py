"""What chance decides in training and sampling, as functions of (seed, sample number).

Sample number n counts the images that training has seen: step k, of a batch of B, is made of the numbers
(k - 1) B to k B - 1. So which image, noise, time and label a step takes depends neither on how the work is divided
nor on whether it was interrupted.
"""

import math
from enum import IntEnum
from functools import lru_cache

import torch
from torch import Tensor

from sitkit.objectives import Times
from sitkit.samplers import philox


class Stream(IntEnum):
    """Independent sources of random numbers under one seed: the first number of a key, in the domain of recipes."""

    ORDER = 1
    NOISE = 2
    TIME = 3
    DROPOUT = 4
    START = 5
    DEQUANTISATION = 6
    CURVE = 7
    FLIP = 8
    LATENT = 9
    LABEL = 10


class Permutation:
    """The order in which images are seen: every epoch another permutation of them all."""

    def __init__(self, seed: int, count: int):
        self.seed = seed
        self.count = count
        self._permute = lru_cache(maxsize=2)(self._draw)  # threads may be at the end of one epoch and in the next

    def __call__(self, index: Tensor) -> Tensor:
        """Return the image, (B,) int64, of each of the sample numbers (B,)."""
        images = torch.empty_like(index)
        epochs = index // self.count
        for epoch in torch.unique(epochs).tolist():
            here = epochs == epoch
            images[here] = self._permute(epoch)[index[here] % self.count]
        return images

    def _draw(self, epoch: int) -> Tensor:
        key = philox.key(self.seed, Stream.ORDER, epoch)
        high, low = philox.words(key, torch.arange(self.count), 2).unbind(1)
        return ((high << 31) | (low >> 1)).argsort(stable=True)


def noise(seed: int, stream: Stream, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal noise, (B, *shape) float32, of sample numbers (B,)."""
    return philox.normal(philox.key(seed, stream), index, shape).float()


def uniforms(seed: int, stream: Stream, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return numbers uniform in [0, 1), (B, *shape) float32, of sample numbers (B,)."""
    words = philox.words(philox.key(seed, stream), index, math.prod(shape))
    return (words >> 8).float().reshape(len(index), *shape) * 2.0**-24


def times(seed: int, index: Tensor, distribution: Times, interval: tuple[float, float]) -> Tensor:
    """Return times of that distribution, scaled to the interval, (B,) float32, of sample numbers (B,)."""
    low, high = interval
    return low + (high - low) * distribution(philox.uniform(philox.key(seed, Stream.TIME), index))


def flips(seed: int, index: Tensor, share: float) -> Tensor:
    """Return whether each of the sample numbers (B,) is mirrored: that share of them is."""
    return philox.uniform(philox.key(seed, Stream.FLIP), index) < share


def drop_labels(seed: int, index: Tensor, labels: Tensor, null: int, share: float) -> Tensor:
    """Return the labels (B,) of which that share has become the null label."""
    dropped = philox.uniform(philox.key(seed, Stream.DROPOUT), index) < share
    return labels.masked_fill(dropped.to(labels.device), null)
