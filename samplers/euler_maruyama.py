"""The Euler-Maruyama method, the paper's stochastic sampler."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .noise import white
from .one_step import check_step
from .protocols import NoiseSource
from .sde import StochasticEquation, check_sde, safe_sqrt
from .states import column
from .transition import Transition, TransitionStep


@dataclass(frozen=True)
class EulerMaruyama(TransitionStep):
    """The Euler-Maruyama method: x + h drift + sqrt(w h) z (SiT, arXiv 2401.08740, algorithm 2).

    Weak order 1, NFE: one per step.
    """

    order: ClassVar[int] = 1
    sde: StochasticEquation
    noise: NoiseSource = white

    def __post_init__(self) -> None:
        check_sde(self.sde, "EulerMaruyama")

    def transition(self, x: Tensor, t: Tensor, s: Tensor, /) -> Transition:
        """Return the distribution of the state at time s > t."""
        t, s = check_step(t, s)
        drift, w = self.sde(x, t)
        h = s - t
        return Transition(x + column(h, x) * drift, column(safe_sqrt(w * h), x))
