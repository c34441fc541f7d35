"""A last step to the predicted data, by Tweedie's formula."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .one_step import OneStep, at
from .path_from_noise import check_from_noise
from .protocols import Field, Path


@dataclass(frozen=True)
class Tweedie(OneStep):
    """The predicted data E[x | x_t], by Tweedie's formula (Robbins 1956, Efron 2011). NFE: one.

    Use it as the last step only. As a last step from t to 1, its error is of the order of sigma(t)^2, as that of other
    steps of order 1. Time s is not used.
    """

    order: ClassVar[int] = 1
    velocity: Field
    path: Path

    def __post_init__(self) -> None:
        check_from_noise(self.path, type(self).__name__)

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the data predicted from state x at time t."""
        return self.path.data_from_velocity(at(self.velocity, x, t), x, t)
