"""Noise: what samples start from, and sources of what stochastic steps add."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from . import philox
from .philox import Domain


def initial_noise(seed: int, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the standard normal noise that samples start from, (B, *shape) float32, a function of (seed, number).

    It is independent of what `Keyed` and `Brownian` give under the same seed.

    Args:
        seed: any integer; its low 64 bits count.
        index: the sample numbers, (B,) integers; the noise is on their device.
        shape: of one sample.

    Raises:
        ValueError: `index` is not of shape (B,), or not of integers.
    """
    return philox.normal(philox.key(seed, 0, domain=Domain.START), index, tuple(shape)).float()


def white(x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
    """Return standard normal noise of x's shape from torch's global generator."""
    return torch.randn_like(x)


@dataclass(frozen=True, eq=False)
class Keyed:
    """Noise that is a function of (seed, sample number, t, s): the same for a sample in whatever batch it comes.

    Args:
        seed: any integer; its low 64 bits count.
        index: the sample numbers of the rows, (B,) integers.
    """

    seed: int
    index: Tensor

    def __call__(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return standard normal noise of x's shape (B, *) for the step from t to s, times for all rows or (B,).

        Raises:
            ValueError: x has not as many rows as there are sample numbers, or these are not integers of shape (B,).
        """
        index, shape = numbers(self.index, x), tuple(x.shape[1:])
        noise = torch.empty_like(x)
        for rows, start, end in steps(x, t, s):
            key = philox.key(self.seed, _bits(start), _bits(end), domain=Domain.STEPS)
            drawn = philox.normal(key, index[rows], shape).to(x.dtype)
            if isinstance(rows, slice):
                return drawn
            noise[rows] = drawn
        return noise


def numbers(index: Tensor, x: Tensor) -> Tensor:
    """Return the sample numbers of the rows of x, on its device.

    Raises:
        ValueError: x has not as many rows as there are sample numbers.
    """
    if len(x) != len(index):
        raise ValueError(f"there are {len(index)} sample numbers, and x has {len(x)} rows")
    return index.to(x.device)


def steps(x: Tensor, t: Tensor, s: Tensor) -> Iterator[tuple[slice | Tensor, float, float]]:
    """Give the rows of x, from t, and to s, of every different step: all rows of one if both times are scalars."""
    if not t.ndim and not s.ndim:
        yield slice(None), float(t.detach()), float(s.detach())
        return
    different: dict[tuple[float, float], list[int]] = {}
    pairs = zip(t.expand(len(x)).tolist(), s.expand(len(x)).tolist(), strict=True)
    for row, pair in enumerate(pairs):
        different.setdefault(pair, []).append(row)
    for (start, end), rows in different.items():
        yield torch.tensor(rows, device=x.device), start, end


def _bits(t: float) -> int:
    """Return the 64 bits of the time as a double, so that it counts by its value and not by its precision."""
    return int.from_bytes(struct.pack("<d", t + 0.0), "little")
