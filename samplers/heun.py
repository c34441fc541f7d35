"""Heun's method of order 2, the paper's deterministic sampler."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .one_step import OneStep, at
from .precision import column
from .protocols import Field


@dataclass(frozen=True)
class Heun(OneStep):
    """x + h/2 (v(x, t) + v(x + h v(x, t), s)): two calls of the velocity a step (SiT, arXiv 2401.08740, alg. 1)."""

    order: ClassVar[int] = 2
    velocity: Field

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s."""
        h = column(s - t, x)
        first = at(self.velocity, x, t)
        second = at(self.velocity, (x + h * first).to(x.dtype), s)
        return x + h / 2 * (first + second)
