r"""The discrete schedule of DDPM and DiT, as a path in continuous time."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .interpolant import Interpolant


@dataclass(frozen=True)
class DDPM(Interpolant):
    r"""$\alpha^2 = \bar\alpha_k = \prod_{i \le k}(1 - \beta_i)$, $\sigma^2 = 1 - \alpha^2$, with $\beta_i$ linear in i.

    The schedule of Ho et al. (arXiv 2006.11239, sec. 4) and of DiT: beta rises from beta_min at timestep 0 to beta_max
    at timestep steps - 1. Timestep k is the time t = 1 - (k + 1) / steps, and t = 1 is the data themselves. Between
    timesteps the sum of $\log(1 - \beta_i)$ is continued by Euler and Maclaurin's formula, whose next term is below
    1e-13 here: at the timesteps it is the product. Neither end is exact: alpha(0) = .0064, and sigma_dot(1) is
    infinite.

    Raises:
        ValueError: beta that does not rise, leaves (0, 1), or rises so fast that its continuation would leave it.
    """

    steps: int = 1000
    beta_min: float = 1e-4
    beta_max: float = 0.02

    def __post_init__(self) -> None:
        slope = (self.beta_max - self.beta_min) / max(self.steps - 1, 1)
        if self.steps < 2 or not slope / 2 <= self.beta_min < self.beta_max < 1 - slope / 2:
            raise ValueError(
                "DDPM takes steps >= 2 and 0 < beta_min < beta_max < 1, with a rise from step to step of at most "
                f"2 beta_min: got {self.steps}, {self.beta_min} and {self.beta_max}"
            )

    def alpha(self, t: Tensor) -> Tensor:
        """Return the share of the data."""
        return torch.exp(self._log_alpha(t)).to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        """Return the share of the noise."""
        return torch.sqrt(torch.expm1(2 * self._log_alpha(t)).abs()).to(t.dtype)  # abs: the root of -0 is -0

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Return alpha times the rate of log alpha."""
        return (self.alpha(t).double() * self._rate(t)).to(t.dtype)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """Return -alpha alpha_dot / sigma, minus infinity at t = 1."""
        return (-(self.alpha(t).double() ** 2) * self._rate(t) / self.sigma(t).double()).to(t.dtype)

    def timestep(self, t: Tensor) -> Tensor:
        """Return steps (1 - t) - 1, of t's shape: the timestep, whole for times of the discrete chain."""
        return self.steps * (1 - t) - 1

    def time(self, timestep: Tensor) -> Tensor:
        """Return 1 - (k + 1) / steps, of the timestep's shape: float64 for whole numbers."""
        timestep = timestep if timestep.is_floating_point() else timestep.double()
        return 1 - (timestep + 1) / self.steps

    def times(self, count: int) -> Tensor:
        """Return the times, (count + 1,) float64, of `count` of the timesteps, evenly spread, and then of the data.

        Raises:
            ValueError: fewer than 2 or more than all timesteps.
        """
        if not 2 <= count <= self.steps:
            raise ValueError(f"count must lie between 2 and {self.steps}, got {count}")
        timesteps = torch.linspace(0, self.steps - 1, count, dtype=torch.float64).round()
        return torch.cat([self.time(timesteps.flip(0)), torch.ones(1, dtype=torch.float64)])

    @property
    def _slope(self) -> float:
        return (self.beta_max - self.beta_min) / (self.steps - 1)

    def _beta(self, t: Tensor) -> Tensor:
        """Return beta, continued to the boundary between timestep k and the next, k = timestep(t), in float64."""
        return self.beta_min + self._slope * (self.timestep(t.double()) + 0.5)

    def _log_alpha(self, t: Tensor) -> Tensor:
        """Return half the sum of log(1 - beta_i) for i = 0 ... timestep(t), in float64."""
        before, after = self.beta_min - self._slope / 2, self._beta(t)
        integral = (_integral(after) - _integral(torch.tensor(before, dtype=torch.float64))) / self._slope
        correction = self._slope / 24 * (1 / (1 - after) - 1 / (1 - before))
        return (integral + correction) / 2

    def _rate(self, t: Tensor) -> Tensor:
        """Return the derivative of log alpha by t, in float64."""
        beta = self._beta(t)
        return -self.steps / 2 * (torch.log1p(-beta) + self._slope**2 / 24 / (1 - beta) ** 2)


def _integral(beta: Tensor) -> Tensor:
    """Return the integral of log(1 - b) for b from 0 to beta."""
    return -(1 - beta) * torch.log1p(-beta) - beta
