"""Heun's method, the paper's deterministic sampler."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .one_step import OneStep, at
from .protocols import Field
from .states import column


@dataclass(frozen=True)
class Heun(OneStep):
    """Heun's method: x + h/2 (v(x, t) + v(x + h v(x, t), s)) (SiT, arXiv 2401.08740, algorithm 1).

    Order 2, NFE: two per step.
    """

    order: ClassVar[int] = 2
    velocity: Field

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s."""
        h = column(s - t, x)
        first = at(self.velocity, x, t)
        second = at(self.velocity, (x + h * first).to(x.dtype), s)
        return x + h / 2 * (first + second)
