r"""The discrete noise schedule of DDPM and DiT, as a path in continuous time."""

from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from .interpolant import Interpolant

MIN_DISTANCE = 3000
"""The least distance of beta_max from 1, in steps of beta, at which 2 terms of the Euler-Maclaurin formula suffice."""
SHIFT = 48
"""The number of timesteps by which the formula is otherwise shifted away from beta = 1. It then has 3 terms."""


@dataclass(frozen=True)
class DDPM(Interpolant):
    r"""The DDPM path: $\alpha^2 = \bar\alpha_k = \prod_{i \le k}(1 - \beta_i)$, $\sigma^2 = 1 - \alpha^2$, with
    $\beta_i$ linear in i.

    This is the schedule of Ho et al. (arXiv 2006.11239, sec. 4) and of DiT: beta increases from beta_min at timestep 0
    to beta_max at timestep steps - 1. Timestep k is the time t = 1 - (k + 1) / steps, and t = 1 is the data. The
    distribution at t = 0 is only approximately N(0, I), because alpha(0) = 0.0064. sigma_dot(1) is infinite.

    Between timesteps, the Euler-Maclaurin formula interpolates the sum of $\log(1 - \beta_i)$. At timesteps it equals
    the product to 1e-11. If beta_max is close to 1, where the terms of the formula decrease slowly, the formula gives
    the sum up to timestep k - `SHIFT`, and the remaining terms $\log(1 - \beta_i)$ are added one by one.

    Raises:
        ValueError: beta does not increase, leaves (0, 1), or increases so fast that its interpolation leaves (0, 1).
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
                "DDPM takes whole steps >= 2 and 0 < beta_min < beta_max < 1, and beta may increase by at most "
                f"2 beta_min per step: got {self.steps}, {self.beta_min} and {self.beta_max}"
            )

    def alpha(self, t: Tensor) -> Tensor:
        """Return exp of half the sum of log(1 - beta_i) up to the timestep of t."""
        return torch.exp(self._log_alpha(t)).to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        """Return sqrt(1 - alpha^2), computed by `expm1`."""
        return torch.sqrt(torch.expm1(2 * self._log_alpha(t)).abs()).to(t.dtype)  # abs, because sqrt(-0.0) = -0.0

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Return alpha times the derivative of log alpha."""
        return (self.alpha(t).double() * self._rate(t)).to(t.dtype)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """Return -alpha alpha_dot / sigma. It is minus infinity at t = 1."""
        return (-(self.alpha(t).double() ** 2) * self._rate(t) / self.sigma(t).double()).to(t.dtype)

    def timestep(self, t: Tensor) -> Tensor:
        """Return the timestep steps (1 - t) - 1, of t's shape. It is whole for times of the discrete chain."""
        return self.steps * (1 - t) - 1

    def time(self, timestep: Tensor) -> Tensor:
        """Return the time 1 - (k + 1) / steps of timestep k, of the timestep's shape. Integers give float64."""
        timestep = timestep if timestep.is_floating_point() else timestep.double()
        return 1 - (timestep + 1) / self.steps

    def times(self, count: int) -> Tensor:
        """Return the times of `count` evenly spaced timesteps, followed by t = 1: (count + 1,), float64.

        Raises:
            ValueError: `count` is less than 2 or more than the number of timesteps.
        """
        if not isinstance(count, Integral) or not 2 <= count <= self.steps:
            raise ValueError(f"count must be whole and lie between 2 and {self.steps}, got {count}")
        timesteps = torch.linspace(0, self.steps - 1, count, dtype=torch.float64, device="cpu").round()
        return torch.cat([self.time(timesteps.flip(0)), torch.ones_like(timesteps[:1])])

    @property
    def _slope(self) -> float:
        return (self.beta_max - self.beta_min) / (self.steps - 1)

    @property
    def _shift(self) -> int:
        """The number of timesteps by which the Euler-Maclaurin formula is shifted away from beta = 1."""
        return 0 if 1 - self.beta_max > MIN_DISTANCE * self._slope else SHIFT

    def _beta(self, t: Tensor) -> Tensor:
        """Return beta, interpolated at timestep(t) + 1/2, the upper limit of the sum up to timestep(t), in float64."""
        return self.beta_min + self._slope * (self.timestep(t.double()) + 0.5)

    def _log_alpha(self, t: Tensor) -> Tensor:
        """Return half the sum of log(1 - beta_i) for i = 0 ... timestep(t), in float64."""
        shift = self._shift * self._slope
        before = torch.full((), self.beta_min - self._slope / 2 - shift, dtype=torch.float64, device=t.device)
        after = self._beta(t) - shift
        total = (_integral(after) - _integral(before)) / self._slope
        total = total + self._slope / 24 * (1 / (1 - after) - 1 / (1 - before))
        if self._shift:
            total = total - 7 / 2880 * self._slope**3 * (1 / (1 - after) ** 3 - 1 / (1 - before) ** 3)
            total = total + (
                torch.log1p(-self._remaining_betas(after)) - torch.log1p(-self._remaining_betas(before))
            ).sum(-1)
        return total / 2

    def _rate(self, t: Tensor) -> Tensor:
        """Return the derivative of log alpha with respect to t, in float64."""
        beta = self._beta(t) - self._shift * self._slope
        change = torch.log1p(-beta) + self._slope**2 / 24 / (1 - beta) ** 2
        if self._shift:
            change = change - 7 / 960 * self._slope**4 / (1 - beta) ** 4
            change = change - self._slope * (1 / (1 - self._remaining_betas(beta))).sum(-1)
        return -self.steps / 2 * change

    def _remaining_betas(self, boundary: Tensor) -> Tensor:
        """Return the betas of the `SHIFT` timesteps after a boundary, in a new last dimension."""
        numbers = torch.arange(self._shift, dtype=torch.float64, device=boundary.device)
        return boundary[..., None] + self._slope * (numbers + 0.5)


def _integral(beta: Tensor) -> Tensor:
    """Return the integral of log(1 - b) for b from 0 to beta."""
    return -(1 - beta) * torch.log1p(-beta) - beta
