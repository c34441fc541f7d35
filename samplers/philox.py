"""Random numbers that are a function of a key and a counter: Philox 4x32-10 (Salmon et al., SC 2011).

Every draw here is a function of (key, sample number) alone, so it depends neither on batches, nor on processes, nor
on what was drawn before, and the integers behind it are the same on every device. 32-bit words are held in int64.
"""

import math
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

Key: TypeAlias = tuple[int, int]
"""Two 32-bit words."""
Word = TypeVar("Word", int, Tensor)

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF


def philox(counter: tuple[Word, Word, Word, Word], key: Key) -> tuple[Word, Word, Word, Word]:
    """Return four random words for the four of a counter: numbers in [0, 2^32), or tensors of them, int64."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2  # products of int64 wrap, and hold the same 64 bits
        c0, c1, c2, c3 = (p1 >> 32 & _LOW) ^ c1 ^ k0, p1 & _LOW, (p0 >> 32 & _LOW) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = k0 + _INCREMENTS[0] & _LOW, k1 + _INCREMENTS[1] & _LOW
    return c0, c1, c2, c3


def key(seed: int, first: int, second: int = 0) -> Key:
    """Return a key derived from a seed and two numbers of 64 bits each.

    Keys of different seeds or numbers are independent for all that one can see.
    """
    counter = (first & _LOW, first >> 32 & _LOW, second & _LOW, second >> 32 & _LOW)
    return philox(counter, (seed & _LOW, seed >> 32 & _LOW))[:2]


def words(key: Key, index: Tensor, count: int) -> Tensor:
    """Return `count` random words, (B, count) int64, for each of the sample numbers `index`, (B,) int64."""
    blocks = torch.arange(-(-count // 4), device=index.device)
    rows, columns = torch.meshgrid(index, blocks, indexing="ij")
    counter = (columns, torch.zeros_like(rows), rows & _LOW, rows >> 32 & _LOW)
    return torch.stack(philox(counter, key), dim=-1).flatten(1)[:, :count]


def uniform(key: Key, index: Tensor) -> Tensor:
    """Return one number in [0, 1), (B,) float32 with 24 random bits, for each sample number."""
    return (words(key, index, 1)[:, 0] >> 8).float() * 2.0**-24


def normal(key: Key, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal numbers, (B, *shape) float64, for each sample number, by Box and Muller's formula."""
    count = math.prod(shape)
    pairs = words(key, index, count + count % 2).double().reshape(len(index), -1, 2)
    radius = (-2 * torch.log((pairs[..., 0] + 1) * 2.0**-32)).sqrt()
    angle = 2 * math.pi * 2.0**-32 * pairs[..., 1]
    both = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
    return both.flatten(1)[:, :count].reshape(len(index), *shape)
