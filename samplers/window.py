"""A diffusion coefficient in a window of times: an SDE inside, the ODE outside."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .jumps import jumps_of
from .protocols import Diffusion
from .sde import check_diffusion


@dataclass(frozen=True)
class Window:
    """w(t) for t in [low, high], and 0 for other times. Solvers of an SDE then solve the ODE outside of the window.

    MixGRPO (arXiv 2507.21802) optimises the steps of such a window only. A step of `EulerMaruyama` is stochastic if its
    first time is in the window, ends included. Steps outside have no transition density. `Exponential` and
    `ExponentialEuler` integrate w over each step, so the ends of the window need not be times of the grid.

    Args:
        w: the diffusion coefficient inside. It is not evaluated outside.
        interval: (low, high), with low <= high.

    Raises:
        ValueError: `interval` is not (low, high) with low <= high.
    """

    w: Diffusion
    interval: tuple[float, float]

    def __post_init__(self) -> None:
        check_diffusion(self.w)
        low, high = self.interval
        if not low <= high:
            raise ValueError(f"interval must be (low, high) with low <= high, got {self.interval}")

    def __call__(self, t: Tensor, /) -> Tensor:
        """Return w(t) inside of the window and 0 outside, of t's shape."""
        low, high = self.interval
        inside = (low <= t) & (t <= high)
        return torch.where(inside, self.w(t.clamp(low, high)), 0.0)

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times at which the coefficient is discontinuous: the ends of the window inside (0, 1)."""
        return tuple(sorted({*(end for end in self.interval if 0 < end < 1), *jumps_of(self.w)}))
