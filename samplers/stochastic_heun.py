"""Heun's method for SDEs whose noise does not depend on the state."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .noise import white
from .one_step import StochasticStep
from .precision import column, root
from .protocols import NoiseSource
from .sde import SDE


@dataclass(frozen=True)
class StochasticHeun(StochasticStep):
    r"""x + h/2 (a(x, t) + a(x + h a(x, t) + n, s)) + n with $n = \frac12(\sqrt{w_t} + \sqrt{w_s})\sqrt{h}z$.

    Two calls of the velocity a step, weak order 2 for the drift a and any smooth w(t) (Kloeden and Platen,
    Numerical Solution of SDEs, sec. 15.1). With the square root of w_t alone in the noise the order would be 1. Both
    ends of a step are visited: where w or the score is infinite at t = 1, end before, with a last step.
    """

    order: ClassVar[int] = 2
    sde: SDE
    noise: NoiseSource = white

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s > t."""
        h = column(s - t, x)
        drift, w = self.sde(x, t)
        spread = (root(w) + root(self.sde.coefficient(s))) / 2 * (s - t).sqrt()
        noise = column(spread, x) * self.noise(x.to(drift.dtype), t, s)
        ahead, _ = self.sde((x + h * drift + noise).to(x.dtype), s)
        return x + h / 2 * (drift + ahead) + noise
