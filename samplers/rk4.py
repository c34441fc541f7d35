"""The Runge-Kutta method of order 4 by Kutta's 3/8 rule, as `rk4` of torchdiffeq."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .one_step import OneStep, at
from .protocols import Field
from .states import column


@dataclass(frozen=True)
class RK4(OneStep):
    """Kutta's 3/8 rule: x + h/8 (k1 + 3 k2 + 3 k3 + k4) with slopes at t, t + h/3, t + 2h/3 and s.

    Order 4, NFE: four per step.
    """

    order: ClassVar[int] = 4
    velocity: Field

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s."""
        third, h = (s - t) / 3, column(s - t, x)

        def slope(state: Tensor, time: Tensor) -> Tensor:
            return at(self.velocity, state.to(x.dtype), time)

        k1 = slope(x, t)
        k2 = slope(x + h / 3 * k1, t + third)
        k3 = slope(x + h * (k2 - k1 / 3), s - third)
        k4 = slope(x + h * (k1 - k2 + k3), s)
        return x + h / 8 * (k1 + 3 * (k2 + k3) + k4)
