r"""Brownian motion as a noise source: the same path for every grid of times, as strong convergence requires.

Levy's construction: given the values at both ends of a cell of width h, the value in its middle is their mean plus
$\frac12\sqrt{h}z$ with an independent standard normal z, and the two halves are treated alike. Equivalently,
$W(t) = \sum_c z_c S_c(t)$ with a hat function $S_c$ of height $\frac12\sqrt{h}$ for each cell c (Ciesielski). Here, z
is a function of (seed, sample number, cell), so that a grid and its refinement use the same path.

Times are doubles. After enough bisections, both ends of a step are ends of cells, so the sum is finite. The
coefficients are differences of hat functions and are computed in exact arithmetic, so that short steps lose no
precision.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from . import philox
from .noise import distinct_steps, sample_numbers
from .philox import Domain, Key

NEGLIGIBLE = 2.0**-60
"""Terms below this fraction of the standard deviation of an increment are omitted."""
CHUNK = 2**18
"""The number of values that are drawn at once: few kernels for small states, little memory for large ones."""


@dataclass(frozen=True, eq=False)
class Brownian:
    """A noise source that returns increments of one Brownian motion per sample, divided by sqrt(s - t).

    A step draws one normal per bisection that its ends require: few for multiples of 1/64, about 60 for most doubles.

    Args:
        seed: any integer, of which the low 64 bits are used.
        index: the sample numbers of the rows, (B,) integers.
        interval: the interval of the Brownian motion. W is 0 at its start.
        levels: without effect, for compatibility. Bisection is as fine as the times require.

    Raises:
        ValueError: `interval` is not (low, high) with low < high, both finite.
    """

    seed: int
    index: Tensor
    interval: tuple[float, float] = (0.0, 1.0)
    levels: int | None = None

    def __post_init__(self) -> None:
        low, high = self.interval
        if not (-math.inf < low < high < math.inf and high - low < math.inf):
            raise ValueError(f"give a finite interval (low, high), low < high, got {self.interval}")

    def __call__(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return (W(s) - W(t)) / sqrt(s - t), of x's shape (B, *), for scalar times or times (B,).

        Raises:
            ValueError: a time is outside of the interval, t >= s, or x does not have B rows.
        """
        noise = torch.zeros_like(x)
        for rows, start, end in distinct_steps(x, t, s):
            if not start < end:
                raise ValueError(f"Brownian increments need t < s, got {start} and {end}")
            increment = self._increment(x, rows, start, end)
            drawn = (increment / math.sqrt(Fraction(end) - Fraction(start))).to(x.dtype)
            if isinstance(rows, slice):
                return drawn
            noise[rows] = drawn
        return noise

    def position(self, x: Tensor, t: Tensor) -> Tensor:
        """Return W(t), of x's shape (B, *), in float64, for a scalar time t. W is 0 at the start of the interval.

        Raises:
            ValueError: t is outside of the interval, or x does not have B rows.
        """
        return self._increment(x, slice(None), self.interval[0], float(t))

    def _increment(self, x: Tensor, rows: slice | Tensor, t: float, s: float) -> Tensor:
        """Return W(s) - W(t) of some rows, in float64."""
        index = sample_numbers(self.index, x)[rows]
        total = torch.zeros(len(index), *x.shape[1:], dtype=torch.float64, device=x.device)
        terms, chunk = [*self._terms(t, s)], max(1, CHUNK // max(total.numel(), 1))
        for first in range(0, len(terms), chunk):
            keys, weights = zip(*terms[first : first + chunk], strict=True)
            z = philox.normal_of_keys(keys, index, tuple(x.shape[1:]))
            for normal, weight in zip(z, weights, strict=True):
                total += weight * normal
        return total

    def _terms(self, t: float, s: float) -> Iterator[tuple[Key, float]]:
        """Yield the terms of W(s) - W(t): the key of each normal z, and its coefficient."""
        low, high = self.interval
        for time in (t, s):
            if not low <= time <= high:
                raise ValueError(f"t = {time} is outside of the interval {self.interval} of the Brownian motion")
        if t == s:
            return
        threshold = math.sqrt(Fraction(s) - Fraction(t)) * NEGLIGIBLE
        width = Fraction(2) ** math.ceil(math.log2(high - low))  # bisections of powers of 2 reach every double
        width *= 2 if Fraction(low) + width < Fraction(high) else 1
        a, b = ((Fraction(time) - Fraction(low)) / width for time in (t, s))
        yield philox.key(self.seed, 0, domain=Domain.BROWNIAN), math.sqrt(width) * float(b - a)
        cells = [(philox.key(self.seed, 1, domain=Domain.BROWNIAN), width, a, b)]
        while cells:
            key, width, a, b = cells.pop()
            height = math.sqrt(width) / 2
            weight = height * float(_hat(b) - _hat(a))
            if abs(weight) > threshold:
                yield key, weight
            for side in (0, 1):
                ends = [min(max(2 * end - side, Fraction(0)), Fraction(1)) for end in (a, b)]
                if any(0 < end < 1 for end in ends) and height > threshold:
                    cells.append((_key_of_half(key, side), width / 2, ends[0], ends[1]))


def _hat(place: Fraction) -> Fraction:
    """Return the hat function of height 1 on [0, 1]."""
    return 1 - abs(2 * place - 1)


def _key_of_half(key: Key, side: int) -> Key:
    """Return the key of the left (side = 0) or right (side = 1) half of a cell."""
    return philox.key(key.high << 32 | key.low, side, domain=Domain.BROWNIAN)
