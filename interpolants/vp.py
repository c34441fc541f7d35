"""The variance-preserving path of score-based diffusion."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .interpolant import Interpolant


@dataclass(frozen=True)
class VP(Interpolant):
    r"""The VP path: $\alpha = \exp(-\frac12\int_0^u\beta)$, $\sigma^2 = 1 - \alpha^2$, with u = 1 - t.

    Source: SiT, arXiv 2401.08740, eq. 10-11. $\beta(u)$ = beta_min + u (beta_max - beta_min), with the default values
    of SiT's code. The distribution at t = 0 is only approximately N(0, I), because alpha(0) = 0.0066. sigma_dot(1) is
    infinite, unless beta_min = 0.

    Raises:
        ValueError: beta is negative, decreases with u, is 0 everywhere, or is not finite.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not (0 <= self.beta_min <= self.beta_max and 0 < self.beta_max < math.inf):
            raise ValueError(
                f"VP takes 0 <= beta_min <= beta_max, beta_max > 0 and finite, got {self.beta_min} and {self.beta_max}"
            )

    def alpha(self, t: Tensor) -> Tensor:
        """Return exp of minus half the integral of beta from 0 to 1 - t."""
        return torch.exp(self._log_alpha(t))

    def sigma(self, t: Tensor) -> Tensor:
        """Return sqrt(1 - alpha^2), computed by `expm1` because 1 - alpha^2 loses digits near t = 1."""
        return torch.sqrt(-torch.expm1(2 * self._log_alpha(t)))

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Return alpha beta / 2."""
        return self.alpha(t) * self._beta(t) / 2

    def sigma_dot(self, t: Tensor) -> Tensor:
        """Return -alpha^2 beta / (2 sigma). At t = 1 it is minus infinity, or finite if beta_min = 0."""
        rate = -(self.alpha(t) ** 2) * self._beta(t) / (2 * self.sigma(t))
        return rate if self.beta_min else torch.where(t == 1, -math.sqrt(self.beta_max / 2), rate)  # the limit of 0 / 0

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_min + (1 - t) * (self.beta_max - self.beta_min)

    def _log_alpha(self, t: Tensor) -> Tensor:
        u = 1 - t
        return -u * (2 * self.beta_min + u * (self.beta_max - self.beta_min)) / 4
