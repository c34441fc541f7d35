"""Euler's method."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .one_step import OneStep, at
from .precision import column
from .protocols import Field


@dataclass(frozen=True)
class Euler(OneStep):
    """x + h v(x, t), with h = s - t: one call of the velocity a step."""

    order: ClassVar[int] = 1
    velocity: Field

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s."""
        return x + column(s - t, x) * at(self.velocity, x, t)
