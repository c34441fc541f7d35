"""A diffusion coefficient in a window of times: an SDE inside, the ODE outside."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .jumps import jumps_of, rounding_of_times
from .protocols import Diffusion
from .sde import check_diffusion


@dataclass(frozen=True)
class Window:
    """w(t) for t in [low, high], and 0 for other times. Solvers of an SDE then solve the ODE outside of the window.

    MixGRPO (arXiv 2507.21802) optimises the steps of such a window only. A step of `EulerMaruyama` is stochastic if its
    first time is in the window, ends included, up to the rounding error of times. Steps outside have no transition
    density. `Exponential` and `ExponentialEuler` integrate w over each step, so the ends of the window need not be
    times of the grid.

    Args:
        w: the diffusion coefficient inside. It is not evaluated outside.
        interval: (low, high), with low <= high.

    Raises:
        ValueError: w is None or no function, or `interval` is not (low, high) with low <= high, or is outside of
            [0, 1].
    """

    w: Diffusion
    interval: tuple[float, float]

    def __post_init__(self) -> None:
        if self.w is None:
            raise ValueError("a window needs a w(t) inside: for the ODE, use no window")
        check_diffusion(self.w)
        if not isinstance(self.interval, tuple | list) or len(self.interval) != 2:
            raise ValueError(f"interval must be (low, high), got {self.interval}")
        if not self.interval[0] <= self.interval[1]:
            raise ValueError(f"interval must be (low, high) with low <= high, got {self.interval}")
        if self.interval[1] < 0 or self.interval[0] > 1:
            raise ValueError(f"interval must be in times, from 0 to 1, not in numbers of steps, got {self.interval}")

    def __call__(self, t: Tensor, /) -> Tensor:
        """Return w(t) inside of the window and 0 outside, of t's shape."""
        (low, high), rounding = self.interval, rounding_of_times(t.dtype)
        inside = (low - rounding <= t) & (t <= high + rounding)
        return torch.where(inside, self.w(t.clamp(low, high)), 0.0)

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times at which the coefficient is discontinuous: the ends of the window inside (0, 1)."""
        return tuple(sorted({*(end for end in self.interval if 0 < end < 1), *jumps_of(self.w)}))
