"""The explicit midpoint method."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .one_step import OneStep, at
from .protocols import Field
from .states import column


@dataclass(frozen=True)
class Midpoint(OneStep):
    """The explicit midpoint method: x + h v(x + h/2 v(x, t), t + h/2). Order 2, NFE: two per step, none at its end."""

    order: ClassVar[int] = 2
    velocity: Field

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s."""
        h = column(s - t, x)
        halfway = (x + h / 2 * at(self.velocity, x, t)).to(x.dtype)
        return x + h * at(self.velocity, halfway, t + (s - t) / 2)
