"""Random streams of training and sampling: each random number is a function of the seed and a sample number.

In training, sample numbers count the images that the network has seen: step k with batch size B uses the numbers
(k - 1) B to k B - 1. The image, noise, time and label of each are therefore the same for any number of processes, any
gradient accumulation, and after an interruption.
"""

import math
from enum import IntEnum
from functools import lru_cache

import torch
from torch import Tensor

from sitkit.objectives import Times
from sitkit.samplers import philox


class Stream(IntEnum):
    """Independent random streams of one seed. The value is the first number of the Philox key, in recipes' domain."""

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
    SOURCE = 11
    """The noise of sources in training, and of sources that are made of images."""
    SOURCE_ORDER = 12
    SOURCE_LATENT = 13
    START_SOURCE = 14
    """The noise of sources in sampling."""
    START_IMAGE = 15
    START_LATENT = 16


class Permutation:
    """The order in which training uses images: each epoch is another random permutation of all of them."""

    def __init__(self, seed: int, count: int, stream: Stream = Stream.ORDER):
        self.seed = seed
        self.count = count
        self.stream = stream
        self._permutation = lru_cache(maxsize=2)(self._make)  # threads may work on the end of one epoch and on the next

    def __call__(self, index: Tensor) -> Tensor:
        """Return the indices of images, (B,) int64, for sample numbers (B,)."""
        images = torch.empty_like(index)
        epochs = index // self.count
        for epoch in torch.unique(epochs).tolist():
            here = epochs == epoch
            images[here] = self._permutation(epoch)[index[here] % self.count]
        return images

    def _make(self, epoch: int) -> Tensor:
        key = philox.key(self.seed, self.stream, epoch)
        high, low = philox.words(key, torch.arange(self.count), 2).unbind(1)
        return ((high << 31) | (low >> 1)).argsort(stable=True)


def noise(seed: int, stream: Stream, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal noise, (B, *shape) float32, for sample numbers (B,)."""
    return philox.normal(philox.key(seed, stream), index, shape).float()


def uniforms(seed: int, stream: Stream, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return uniform numbers in [0, 1), (B, *shape) float32, for sample numbers (B,)."""
    words = philox.words(philox.key(seed, stream), index, math.prod(shape))
    return (words >> 8).float().reshape(len(index), *shape) * 2.0**-24


def times(seed: int, index: Tensor, distribution: Times, interval: tuple[float, float]) -> Tensor:
    """Return times of a distribution, scaled to the interval, (B,) float32, for sample numbers (B,)."""
    low, high = interval
    return low + (high - low) * distribution(philox.uniform(philox.key(seed, Stream.TIME), index))


def flips(seed: int, index: Tensor, probability: float) -> Tensor:
    """Return whether to mirror the image of each sample number, (B,) bool."""
    return philox.uniform(philox.key(seed, Stream.FLIP), index) < probability


def drop_labels(seed: int, index: Tensor, labels: Tensor, null: int, probability: float) -> Tensor:
    """Return the labels (B,), each replaced by the null label with a probability (classifier-free guidance)."""
    dropped = philox.uniform(philox.key(seed, Stream.DROPOUT), index) < probability
    return labels.masked_fill(dropped.to(labels.device), null)
