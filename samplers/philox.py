"""Counter-based random numbers: Philox 4x32-10 (Salmon et al., SC 2011).

Every draw is a function of (key, sample number) only. It does not depend on batches, processes or earlier draws, and
its integers are the same on every device. 32-bit words are stored in int64.

The four words of a counter are the block of the draw, the domain of its key, and the two halves of the sample number.
Draws of different domains therefore never use the same counter, for any seeds, times and sample numbers.
"""

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

Word = TypeVar("Word", int, Tensor)


class Domain(IntEnum):
    """The domains of random streams. Streams of different domains are independent for any seeds.

    Domains from 16 on are free for custom use.
    """

    RECIPES = 0
    """The streams of `sitkit.recipes`, which differ in the first number of their keys."""
    STEPS = 1
    """`Keyed`."""
    BROWNIAN = 2
    """`Brownian`."""
    PROBES = 3
    """`Hutchinson`."""
    START = 4
    """`initial_noise`."""
    OPERATORS = 5
    """The states that test whether an operator is linear."""


class Key(NamedTuple):
    """The two 32-bit words of a key, and the domain of its draws."""

    low: int
    high: int
    domain: int = 0


_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF


def philox(counter: tuple[Word, Word, Word, Word], key: tuple[Any, Any]) -> tuple[Word, Word, Word, Word]:
    """Return four random words, given the four words of a counter and the two words of a key.

    Words are integers in [0, 2^32) or int64 tensors of them. The key may contain tensors if the counter does.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2  # int64 products wrap and have the same low 64 bits
        c0, c1, c2, c3 = (p1 >> 32 & _LOW) ^ c1 ^ k0, p1 & _LOW, (p0 >> 32 & _LOW) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = k0 + _INCREMENTS[0] & _LOW, k1 + _INCREMENTS[1] & _LOW
    return c0, c1, c2, c3


def key(seed: int, first: int, second: int = 0, *, domain: int = 0) -> Key:
    """Return a key derived from a seed and two 64-bit numbers, for a stream of a domain.

    Keys of different seeds, numbers or domains are statistically independent. Two keys of one domain coincide with
    probability 2^-64. Draws of different domains never use the same counter.
    """
    counter = (first & _LOW, first >> 32 & _LOW, second & _LOW, second >> 32 & _LOW)
    derived = philox(counter, (seed & _LOW, seed >> 32 & _LOW))
    if domain:
        derived = philox(derived, (domain, 0))
    return Key(*derived[:2], domain)


def words(key: Key, index: Tensor, count: int) -> Tensor:
    """Return `count` random words, (B, count) int64, for each of the sample numbers `index`, (B,) integers.

    Raises:
        ValueError: `index` is not of shape (B,) or not of integers.
    """
    return words_of_keys([key], index, count)[0]


def words_of_keys(keys: Sequence[Key], index: Tensor, count: int) -> Tensor:
    """Return `words` for each of several keys of one domain, (K, B, count) int64.

    Raises:
        ValueError: `index` is not of shape (B,) or not of integers.
    """
    if index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool:
        raise ValueError(f"sample numbers must be integers of shape (B,), got {index.dtype} {tuple(index.shape)}")
    rows, columns = torch.meshgrid(index.long(), torch.arange(-(-count // 4), device=index.device), indexing="ij")
    counter = (columns, torch.full_like(rows, keys[0].domain), rows & _LOW, rows >> 32 & _LOW)
    if len(keys) == 1:
        drawn = torch.stack(philox(counter, keys[0][:2]), dim=-1)[None]
    else:
        low, high = _to_device(torch.tensor([key[:2] for key in keys], device="cpu"), index.device).T[:, :, None, None]
        drawn = torch.stack(philox(counter, (low, high)), dim=-1)
    return drawn.flatten(2)[..., :count]


def _to_device(values: Tensor, device: torch.device) -> Tensor:
    """Return values on a device, copied without a synchronisation."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


def uniform(key: Key, index: Tensor) -> Tensor:
    """Return one number in [0, 1), (B,) float32 with 24 random bits, for each sample number."""
    return (words(key, index, 1)[:, 0] >> 8).float() * 2.0**-24


def normal(key: Key, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal numbers, (B, *shape) float64, for each sample number, by the Box-Muller transform."""
    return normal_of_keys([key], index, shape)[0]


def normal_of_keys(keys: Sequence[Key], index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return `normal` for each of several keys of one domain, (K, B, *shape) float64."""
    count = math.prod(shape)
    pairs = words_of_keys(keys, index, count + count % 2).double()
    radius = (-2 * torch.log((pairs[..., 0::2] + 1) * 2.0**-32)).sqrt()
    angle = 2 * math.pi * 2.0**-32 * pairs[..., 1::2]
    both = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
    return both.flatten(2)[..., :count].reshape(len(keys), len(index), *shape)
