"""DDIM: the first-order exponential solver of the ODE."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .one_step import OneStep, at
from .path_from_noise import check_from_noise
from .protocols import Field, Path


@dataclass(frozen=True)
class DDIM(OneStep):
    """DDIM: x_s = alpha_s D + sigma_s E with the predicted data D and noise E. Order 1, NFE: one per step.

    A step is exact if D and E are constant (Song et al., arXiv 2010.02502, eq. 12 with sigma = 0). On the linear path,
    DDIM equals `Euler`. Where sigma_s = 0, the result is D.
    """

    order: ClassVar[int] = 1
    velocity: Field
    path: Path

    def __post_init__(self) -> None:
        check_from_noise(self.path, type(self).__name__)

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s."""
        v = at(self.velocity, x, t)
        data, noise = self.path.data_from_velocity(v, x, t), self.path.noise_from_velocity(v, x, t)
        return self.path.mix(data, noise, s)
