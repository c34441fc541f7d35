r"""One Brownian path that can be looked at as closely as one likes.

A dyadic tree (Levy's construction): given W at both ends of an interval of length h, its middle is the mean of both
plus $\frac12\sqrt{h}z$, with a z that is a function of (seed, sample number, interval). So a grid and its refinement
see one path, which is what strong convergence is about.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from . import philox


@dataclass(frozen=True, eq=False)
class Brownian:
    """A noise source whose steps are increments of one Brownian path for each sample, over their square root of h.

    Args:
        seed: any integer; its low 64 bits count.
        index: the sample numbers of the rows, (B,) int64.
        interval: where the path lives.
        levels: how often it can be halved: times are multiples of 2^-levels of the interval.

    Raises:
        ValueError: no interval, or too many levels.
    """

    seed: int
    index: Tensor
    interval: tuple[float, float] = (0.0, 1.0)
    levels: int = 16

    def __post_init__(self) -> None:
        if not self.interval[0] < self.interval[1] or not 0 <= self.levels <= 30:
            raise ValueError(f"give an interval (low, high) and 0 to 30 levels, got {self.interval} and {self.levels}")

    def __call__(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return (W(s) - W(t)) / sqrt(s - t), of x's shape (B, *).

        Raises:
            ValueError: a time that the tree does not reach, t >= s, or x of other than B rows.
        """
        if not t < s:
            raise ValueError(f"a Brownian path is followed forward: t < s, got {float(t)} and {float(s)}")
        increment = self.position(x, s) - self.position(x, t)
        return (increment / math.sqrt(float(s) - float(t))).to(x.dtype)

    def position(self, x: Tensor, t: Tensor) -> Tensor:
        """Return W(t), of x's shape (B, *), in float64; it is 0 at the interval's start.

        Raises:
            ValueError: a time that the tree does not reach, or x of other than B rows.
        """
        if len(x) != len(self.index):
            raise ValueError(f"there are {len(self.index)} sample numbers, and x has {len(x)} rows")
        low, high = self.interval
        place, cells = self._place(float(t)), 2**self.levels
        left, right = 0, cells
        at_left, at_right = torch.zeros_like(x, dtype=torch.float64), math.sqrt(high - low) * self._normal(x, 0, 0)
        for level in range(1, self.levels + 1):
            if place in (left, right):
                break
            middle = (left + right) // 2
            spread = math.sqrt((high - low) * (right - left) / cells) / 2
            at_middle = (at_left + at_right) / 2 + spread * self._normal(x, level, middle)
            if place < middle:
                right, at_right = middle, at_middle
            else:
                left, at_left = middle, at_middle
        return at_left if place == left else at_right

    def _place(self, t: float) -> int:
        """Return the time as a multiple of the smallest cell."""
        low, high = self.interval
        exact: float = (t - low) / (high - low) * 2**self.levels
        if not 0 <= round(exact) <= 2**self.levels or abs(exact - round(exact)) > 1e-2:
            raise ValueError(f"t = {t} is no multiple of 2^-{self.levels} of {self.interval}: give more levels")
        return round(exact)

    def _normal(self, x: Tensor, level: int, place: int) -> Tensor:
        return philox.normal(philox.key(self.seed, level, place), self.index.to(x.device), tuple(x.shape[1:]))
