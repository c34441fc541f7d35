"""Euler's method."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .one_step import OneStep, at
from .protocols import Field
from .states import column


@dataclass(frozen=True)
class Euler(OneStep):
    """Euler's method: x + h v(x, t) with h = s - t. Order 1, NFE: one per step."""

    order: ClassVar[int] = 1
    velocity: Field

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s."""
        return x + column(s - t, x) * at(self.velocity, x, t)
