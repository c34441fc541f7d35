"""The linear path (rectified flow)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .interpolant import Interpolant


@dataclass(frozen=True)
class Linear(Interpolant):
    r"""The linear path: $\alpha(t) = t$, $\sigma(t) = 1 - t$ (SiT, arXiv 2401.08740, sec. 2.3).

    The velocity of a sample is x - eps.
    """

    def alpha(self, t: Tensor) -> Tensor:
        """Return t."""
        return t

    def sigma(self, t: Tensor) -> Tensor:
        """Return 1 - t."""
        return 1 - t

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """Return -1."""
        return -torch.ones_like(t)
