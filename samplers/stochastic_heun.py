"""Heun's method for SDEs with additive noise."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .noise import white
from .one_step import StochasticStep, check_step
from .protocols import NoiseSource
from .sde import StochasticEquation, check_sde, safe_sqrt
from .states import column


@dataclass(frozen=True)
class StochasticHeun(StochasticStep):
    r"""Heun's method for SDEs with drift a(x, t) and additive noise: x + h/2 (a(x, t) + a(x + h a(x, t) + n, s)) + n.

    The noise is $n = \frac12(\sqrt{w_t} + \sqrt{w_s})\sqrt{h}z$. With w_t alone in place of the mean, the weak order
    would be 1. Weak order 2 for any smooth w(t) (Kloeden and Platen, Numerical Solution of SDEs, sec. 15.1). NFE: two
    per step.

    The drift is evaluated at both ends of a step. If w or the score is infinite at t = 1, end before it, with a last
    step such as `Mean`.
    """

    order: ClassVar[int] = 2
    sde: StochasticEquation
    noise: NoiseSource = white

    def __post_init__(self) -> None:
        check_sde(self.sde, "StochasticHeun")

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s > t."""
        t, s = check_step(t, s)
        h = column(s - t, x)
        drift, w = self.sde(x, t)
        std = (safe_sqrt(w) + safe_sqrt(self.sde.coefficient(s))) / 2 * (s - t).sqrt()
        noise = column(std, x) * self.noise(x.to(drift.dtype), t, s)
        ahead, _ = self.sde((x + h * drift + noise).to(x.dtype), s)
        return x + h / 2 * (drift + ahead) + noise
