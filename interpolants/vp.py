"""The variance-preserving path of score-based diffusion."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .interpolant import Interpolant


@dataclass(frozen=True)
class VP(Interpolant):
    r"""$\alpha = \exp(-\frac12\int_0^u\beta)$, $\sigma^2 = 1 - \alpha^2$, u = 1 - t (SiT, arXiv 2401.08740, eq. 10-11).

    $\beta(u)$ = beta_min + u (beta_max - beta_min); the paper leaves it open, the values are its code's. Neither end
    is exact: alpha(0) = .0066, so that p_0 is not quite N(0, I), and sigma_dot(1) is infinite, unless beta_min = 0.

    Raises:
        ValueError: beta that is negative, falls with u, is 0 everywhere or not finite.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not (0 <= self.beta_min <= self.beta_max and 0 < self.beta_max < math.inf):
            raise ValueError(
                f"VP takes 0 <= beta_min <= beta_max, beta_max > 0 and finite, got {self.beta_min} and {self.beta_max}"
            )

    def alpha(self, t: Tensor) -> Tensor:
        """Return the share of the data."""
        return torch.exp(self._log_alpha(t))

    def sigma(self, t: Tensor) -> Tensor:
        """Return the share of the noise, by expm1: near t = 1 the difference 1 - alpha^2 has few digits left."""
        return torch.sqrt(-torch.expm1(2 * self._log_alpha(t)))

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Return alpha beta / 2."""
        return self.alpha(t) * self._beta(t) / 2

    def sigma_dot(self, t: Tensor) -> Tensor:
        """Return -alpha^2 beta / (2 sigma), minus infinity at t = 1 but for beta_min = 0."""
        rate = -(self.alpha(t) ** 2) * self._beta(t) / (2 * self.sigma(t))
        return rate if self.beta_min else torch.where(t == 1, -math.sqrt(self.beta_max / 2), rate)  # 0 / 0 there

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_min + (1 - t) * (self.beta_max - self.beta_min)

    def _log_alpha(self, t: Tensor) -> Tensor:
        u = 1 - t
        return -u * (2 * self.beta_min + u * (self.beta_max - self.beta_min)) / 4
