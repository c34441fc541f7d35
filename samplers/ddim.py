"""DDIM: the exponential step of the ODE."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .one_step import OneStep, at
from .protocols import Field, Path


@dataclass(frozen=True)
class DDIM(OneStep):
    """alpha_s D + sigma_s E for the data D and the noise E expected from x_t: one call of the velocity a step.

    Exact where D and E stay the same (Song et al., arXiv 2010.02502, eq. 12 with sigma = 0). On the straight path it is
    `Euler`. It lands on D where sigma_s = 0.
    """

    order: ClassVar[int] = 1
    velocity: Field
    path: Path

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s."""
        v = at(self.velocity, x, t)
        data, noise = self.path.data_from_velocity(v, x, t), self.path.noise_from_velocity(v, x, t)
        return self.path.mix(data, noise, s)
