"""The generalised variance-preserving path."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .interpolant import Interpolant


@dataclass(frozen=True)
class GVP(Interpolant):
    r"""The GVP path: $\alpha(t) = \sin(\pi t/2)$, $\sigma(t) = \cos(\pi t/2)$ (SiT, arXiv 2401.08740, sec. 2.3).

    The path preserves the variance: $\alpha^2 + \sigma^2 = 1$. The cosine is computed as the sine of pi/2 (1 - t), so
    that sigma(1) is exactly 0: in float32, cos(pi/2) is a small negative number.
    """

    def alpha(self, t: Tensor) -> Tensor:
        """Return sin(pi t / 2)."""
        return torch.sin(math.pi / 2 * t)

    def sigma(self, t: Tensor) -> Tensor:
        """Return cos(pi t / 2)."""
        return torch.sin(math.pi / 2 * (1 - t))

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Return pi/2 cos(pi t / 2)."""
        return math.pi / 2 * self.sigma(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """Return -pi/2 sin(pi t / 2)."""
        return -math.pi / 2 * self.alpha(t)
