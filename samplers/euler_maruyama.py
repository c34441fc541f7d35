"""Euler and Maruyama's method, the paper's stochastic sampler."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .noise import white
from .one_step import StochasticStep
from .precision import column, root
from .protocols import NoiseSource
from .sde import SDE


@dataclass(frozen=True)
class EulerMaruyama(StochasticStep):
    """x + h drift + sqrt(w h) z: one call of the velocity a step, weak order 1 (SiT, arXiv 2401.08740, algorithm 2)."""

    order: ClassVar[int] = 1
    sde: SDE
    noise: NoiseSource = white

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s > t."""
        drift, w = self.sde(x, t)
        h = s - t
        return x + column(h, x) * drift + column(root(w * h), x) * self.noise(x.to(drift.dtype), t, s)
