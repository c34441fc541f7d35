r"""One Brownian path that can be looked at as closely as one likes.

On a cell of width h, a path that is known at its ends has in the middle the mean of both plus $\frac12\sqrt{h}z$, with
a z of its own; halved again and again, that is all of it (Levy's construction). In other words $W(t) = \sum_c z_c
S_c(t)$, with a hat $S_c$ of height $\frac12\sqrt{h}$ over each cell (Ciesielski). Here z is a function of (seed, sample
number, cell), so a grid and its refinement see one path, which is what strong convergence is about.

Times are doubles, so both ends of a step are ends of cells, if these are halved often enough, and the sum ends. Its
coefficients are differences of hats, found in exact arithmetic: an increment over a short step loses no digits.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from . import philox
from .noise import numbers, steps
from .philox import Domain, Key

NEGLIGIBLE = 2.0**-60
"""The part of an increment's standard deviation below which a term is left out."""
TOGETHER = 2**18
"""How many numbers are drawn at once: few launches for small states, little memory for large ones."""


@dataclass(frozen=True, eq=False)
class Brownian:
    """A noise source whose steps are increments of one Brownian path for each sample, over their square root of h.

    A step costs a draw for every halving that its ends need: few for multiples of 1/64, some 60 for most doubles.

    Args:
        seed: any integer; its low 64 bits count.
        index: the sample numbers of the rows, (B,) integers.
        interval: where the path lives; W is 0 at its start.
        levels: without effect. It was once how often cells could be halved; now they are as often as times ask for.

    Raises:
        ValueError: the interval is none, or not finite.
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
        """Return (W(s) - W(t)) / sqrt(s - t), of x's shape (B, *), for times of all rows or (B,).

        Raises:
            ValueError: a time outside of the interval, t >= s, or x of other than B rows.
        """
        noise = torch.zeros_like(x)
        for rows, start, end in steps(x, t, s):
            if not start < end:
                raise ValueError(f"a Brownian path is followed forward: t < s, got {start} and {end}")
            increment = self._increment(x, rows, start, end)
            drawn = (increment / math.sqrt(Fraction(end) - Fraction(start))).to(x.dtype)
            if isinstance(rows, slice):
                return drawn
            noise[rows] = drawn
        return noise

    def position(self, x: Tensor, t: Tensor) -> Tensor:
        """Return W(t), of x's shape (B, *), in float64, for a time t of all rows; it is 0 at the interval's start.

        Raises:
            ValueError: a time outside of the interval, or x of other than B rows.
        """
        return self._increment(x, slice(None), self.interval[0], float(t))

    def _increment(self, x: Tensor, rows: slice | Tensor, t: float, s: float) -> Tensor:
        """Return W(s) - W(t) of some rows, in float64."""
        index = numbers(self.index, x)[rows]
        total = torch.zeros(len(index), *x.shape[1:], dtype=torch.float64, device=x.device)
        terms, together = [*self._terms(t, s)], max(1, TOGETHER // max(total.numel(), 1))
        for first in range(0, len(terms), together):
            keys, weights = zip(*terms[first : first + together], strict=True)
            z = philox.normal_of_keys(keys, index, tuple(x.shape[1:]))
            for one, weight in zip(z, weights, strict=True):
                total += weight * one
        return total

    def _terms(self, t: float, s: float) -> Iterator[tuple[Key, float]]:
        """Give the key of every z that counts in W(s) - W(t), and what it is multiplied by."""
        low, high = self.interval
        for time in (t, s):
            if not low <= time <= high:
                raise ValueError(f"t = {time} lies outside of the Brownian path's interval {self.interval}")
        if t == s:
            return
        least = math.sqrt(Fraction(s) - Fraction(t)) * NEGLIGIBLE
        width = Fraction(2) ** math.ceil(math.log2(high - low))  # halves of powers of 2 end at every double
        width *= 2 if Fraction(low) + width < Fraction(high) else 1
        a, b = ((Fraction(time) - Fraction(low)) / width for time in (t, s))
        yield philox.key(self.seed, 0, domain=Domain.BROWNIAN), math.sqrt(width) * float(b - a)
        cells = [(philox.key(self.seed, 1, domain=Domain.BROWNIAN), width, a, b)]
        while cells:
            key, width, a, b = cells.pop()
            height = math.sqrt(width) / 2
            weight = height * float(_hat(b) - _hat(a))
            if abs(weight) > least:
                yield key, weight
            for side in (0, 1):
                inner = [min(max(2 * end - side, Fraction(0)), Fraction(1)) for end in (a, b)]
                if any(0 < end < 1 for end in inner) and height > least:
                    cells.append((_half(key, side), width / 2, inner[0], inner[1]))


def _hat(place: Fraction) -> Fraction:
    """Return the hat of height 1 over the unit interval."""
    return 1 - abs(2 * place - 1)


def _half(key: Key, side: int) -> Key:
    """Return the key of a half of a cell: 0 the left, 1 the right one."""
    return philox.key(key.high << 32 | key.low, side, domain=Domain.BROWNIAN)
