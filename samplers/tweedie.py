"""The jump to the data."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .one_step import OneStep, at
from .protocols import Field, Path


@dataclass(frozen=True)
class Tweedie(OneStep):
    """E[x | x_t], the state at the end of the path if there were no doubt of it: one call, a last step only.

    The posterior mean of Robbins (1956) and Efron (2011). As a last step from t to 1 it misses where the ODE leads by
    the order of sigma(t)^2, as a step of order 1 does. The time s plays no part.
    """

    order: ClassVar[int] = 1
    velocity: Field
    path: Path

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the data expected from the state x at time t."""
        return self.path.data_from_velocity(at(self.velocity, x, t), x, t)
