r"""The discrete schedule of DDPM and DiT, as a path in continuous time."""

from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from .interpolant import Interpolant

ENOUGH, FARTHER = 3000, 48
"""How many of its steps beta must stay from 1 for two terms of the formula, and how many are enough for three."""


@dataclass(frozen=True)
class DDPM(Interpolant):
    r"""$\alpha^2 = \bar\alpha_k = \prod_{i \le k}(1 - \beta_i)$, $\sigma^2 = 1 - \alpha^2$, with $\beta_i$ linear in i.

    The schedule of Ho et al. (arXiv 2006.11239, sec. 4) and of DiT: beta rises from beta_min at timestep 0 to beta_max
    at timestep steps - 1. Timestep k is the time t = 1 - (k + 1) / steps, and t = 1 is the data themselves. Between
    timesteps the sum of $\log(1 - \beta_i)$ is continued by Euler and Maclaurin's formula: at the timesteps it is the
    product, to 1e-11. Where beta comes so near to 1 that the formula's terms do not fall fast, it is used farther from
    1, and the sum's own law, $\log\bar\alpha_k = \log\bar\alpha_{k-1} + \log(1 - \beta_k)$, leads from there to k.
    Neither end is exact: alpha(0) = .0064, and sigma_dot(1) is infinite.

    Raises:
        ValueError: beta that does not rise, leaves (0, 1), or rises so fast that its continuation would leave it.
    """

    steps: int = 1000
    beta_min: float = 1e-4
    beta_max: float = 0.02

    def __post_init__(self) -> None:
        slope = (self.beta_max - self.beta_min) / max(self.steps - 1, 1)
        if (
            not isinstance(self.steps, Integral)
            or self.steps < 2
            or not slope / 2 <= self.beta_min < self.beta_max < 1 - slope / 2
        ):
            raise ValueError(
                "DDPM takes whole steps >= 2 and 0 < beta_min < beta_max < 1, with a rise from step to step of at most "
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
        if not isinstance(count, Integral) or not 2 <= count <= self.steps:
            raise ValueError(f"count must be whole and lie between 2 and {self.steps}, got {count}")
        timesteps = torch.linspace(0, self.steps - 1, count, dtype=torch.float64, device="cpu").round()
        return torch.cat([self.time(timesteps.flip(0)), torch.ones_like(timesteps[:1])])

    @property
    def _slope(self) -> float:
        return (self.beta_max - self.beta_min) / (self.steps - 1)

    @property
    def _farther(self) -> int:
        """How many timesteps before, and so how much farther from beta = 1, the formula is used."""
        return 0 if 1 - self.beta_max > ENOUGH * self._slope else FARTHER

    def _beta(self, t: Tensor) -> Tensor:
        """Return beta, continued to the boundary between timestep k and the next, k = timestep(t), in float64."""
        return self.beta_min + self._slope * (self.timestep(t.double()) + 0.5)

    def _log_alpha(self, t: Tensor) -> Tensor:
        """Return half the sum of log(1 - beta_i) for i = 0 ... timestep(t), in float64."""
        shift = self._farther * self._slope
        before = torch.full((), self.beta_min - self._slope / 2 - shift, dtype=torch.float64, device=t.device)
        after = self._beta(t) - shift
        total = (_integral(after) - _integral(before)) / self._slope
        total = total + self._slope / 24 * (1 / (1 - after) - 1 / (1 - before))
        if self._farther:
            total = total - 7 / 2880 * self._slope**3 * (1 / (1 - after) ** 3 - 1 / (1 - before) ** 3)
            total = total + (torch.log1p(-self._last(after)) - torch.log1p(-self._last(before))).sum(-1)
        return total / 2

    def _rate(self, t: Tensor) -> Tensor:
        """Return the derivative of log alpha by t, in float64."""
        beta = self._beta(t) - self._farther * self._slope
        change = torch.log1p(-beta) + self._slope**2 / 24 / (1 - beta) ** 2
        if self._farther:
            change = change - 7 / 960 * self._slope**4 / (1 - beta) ** 4
            change = change - self._slope * (1 / (1 - self._last(beta))).sum(-1)
        return -self.steps / 2 * change

    def _last(self, boundary: Tensor) -> Tensor:
        """Return the betas of the timesteps after a boundary, as many as the formula was taken farther."""
        numbers = torch.arange(self._farther, dtype=torch.float64, device=boundary.device)
        return boundary[..., None] + self._slope * (numbers + 0.5)


def _integral(beta: Tensor) -> Tensor:
    """Return the integral of log(1 - b) for b from 0 to beta."""
    return -(1 - beta) * torch.log1p(-beta) - beta
