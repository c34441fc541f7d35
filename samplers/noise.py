"""Initial noise, and noise sources for stochastic solvers."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from . import philox
from .philox import Domain


def initial_noise(seed: int, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the initial standard normal noise of samples, (B, *shape) float32, as a function of (seed, sample number).

    It is independent of the noise of `Keyed` and `Brownian` with the same seed.

    Args:
        seed: any integer, of which the low 64 bits are used.
        index: the sample numbers, (B,) integers. The noise is on their device.
        shape: the shape of one sample.

    Raises:
        ValueError: `index` is not of shape (B,) or not of integers.
    """
    return philox.normal(philox.key(seed, 0, domain=Domain.START), index, tuple(shape)).float()


def white(x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
    """Return standard normal noise of x's shape from torch's default generator."""
    return torch.randn_like(x)


@dataclass(frozen=True, eq=False)
class Keyed:
    """A noise source that is a function of (seed, sample number, t, s). It does not depend on the batch of a sample.

    Args:
        seed: any integer, of which the low 64 bits are used.
        index: the sample numbers of the rows, (B,) integers.
    """

    seed: int
    index: Tensor

    def __call__(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return standard normal noise of x's shape (B, *) for the step from t to s, scalar times or (B,).

        Raises:
            ValueError: the number of sample numbers differs from the number of rows, or they are not integers (B,).
        """
        index, shape = sample_numbers(self.index, x), tuple(x.shape[1:])
        noise = torch.empty_like(x)
        for rows, start, end in distinct_steps(x, t, s):
            key = philox.key(self.seed, _bits(start), _bits(end), domain=Domain.STEPS)
            drawn = philox.normal(key, index[rows], shape).to(x.dtype)
            if isinstance(rows, slice):
                return drawn
            noise[rows] = drawn
        return noise


def sample_numbers(index: Tensor, x: Tensor) -> Tensor:
    """Return the sample numbers of the rows of x, on x's device.

    Raises:
        ValueError: the number of sample numbers differs from the number of rows.
    """
    if len(x) != len(index):
        raise ValueError(f"there are {len(index)} sample numbers, and x has {len(x)} rows")
    return index.to(x.device)


def distinct_steps(x: Tensor, t: Tensor, s: Tensor) -> Iterator[tuple[slice | Tensor, float, float]]:
    """Yield (rows of x, t, s) for each distinct step in a batch. Scalar times are one step of all rows."""
    if not t.ndim and not s.ndim:
        yield slice(None), float(t.detach()), float(s.detach())
        return
    rows_of_step: dict[tuple[float, float], list[int]] = {}
    pairs = zip(t.expand(len(x)).tolist(), s.expand(len(x)).tolist(), strict=True)
    for row, pair in enumerate(pairs):
        rows_of_step.setdefault(pair, []).append(row)
    for (start, end), rows in rows_of_step.items():
        yield torch.tensor(rows, device=x.device), start, end


def _bits(t: float) -> int:
    """Return the 64 bits of the time as a double. Float32 and float64 times of equal value have the same bits."""
    return int.from_bytes(struct.pack("<d", t + 0.0), "little")
