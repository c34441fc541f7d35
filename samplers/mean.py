"""The noiseless last step of the paper's stochastic sampler."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .one_step import OneStep
from .sde import StochasticEquation, check_sde
from .states import column


@dataclass(frozen=True)
class Mean(OneStep):
    """A step of the SDE without noise: x + h drift (SiT, arXiv 2401.08740, appendix E). NFE: one.

    Use it as the last step, because noise added in the last step would remain in the sample. The paper solves the SDE
    up to t = 0.96 and goes from there to 1 by this step.
    """

    order: ClassVar[int] = 1
    sde: StochasticEquation

    def __post_init__(self) -> None:
        check_sde(self.sde, "Mean")

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the expected state at time s."""
        drift, _ = self.sde(x, t)
        return x + column(s - t, x) * drift
