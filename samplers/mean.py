"""The last step of the paper's stochastic sampler."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .one_step import OneStep
from .precision import column
from .sde import SDE


@dataclass(frozen=True)
class Mean(OneStep):
    """x + h drift: a step of the SDE without its noise (SiT, arXiv 2401.08740, appendix E).

    A sampler that ends with noise would leave it in the picture; the paper stops at t = .96 and goes to 1 by this.
    """

    order: ClassVar[int] = 1
    sde: SDE

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the expected state at time s."""
        drift, _ = self.sde(x, t)
        return x + column(s - t, x) * drift
