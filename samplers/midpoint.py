"""The explicit midpoint method."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .one_step import OneStep, at
from .precision import column
from .protocols import Field


@dataclass(frozen=True)
class Midpoint(OneStep):
    """x + h v(x + h/2 v(x, t), t + h/2): two calls of the velocity a step, none of them at the step's end."""

    order: ClassVar[int] = 2
    velocity: Field

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s."""
        h = column(s - t, x)
        halfway = (x + h / 2 * at(self.velocity, x, t)).to(x.dtype)
        return x + h * at(self.velocity, halfway, t + (s - t) / 2)
