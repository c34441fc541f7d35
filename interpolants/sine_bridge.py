"""A bridge whose noise starts and ends smoothly."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .straight_bridge import StraightBridge
from .two_sided import check_scale


@dataclass(frozen=True)
class SineBridge(StraightBridge):
    r"""$\alpha = t$, $\beta = 1 - t$, $\gamma = \frac{a}{2}\sin^2(\pi t)$ with a = scale.

    Source: Albergo, Boffi and Vanden-Eijnden, arXiv 2303.08797, table 2. gamma_dot is 0 at both ends, so that the
    velocity is the drift there. The sine is computed as 2 sin(pi t / 2) sin(pi (1 - t) / 2), so that gamma(1) is
    exactly 0: in float32, sin(pi) is not.

    Raises:
        ValueError: `scale` is negative or not finite.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def gamma(self, t: Tensor) -> Tensor:
        """Return scale sin(pi t)^2 / 2."""
        return self.scale / 2 * _sine(t) ** 2

    def gamma_dot(self, t: Tensor) -> Tensor:
        """Return scale pi sin(pi t) cos(pi t)."""
        return self.scale * math.pi * _sine(t) * torch.cos(math.pi * t)


def _sine(t: Tensor) -> Tensor:
    """Return sin(pi t)."""
    return 2 * torch.sin(math.pi / 2 * t) * torch.sin(math.pi / 2 * (1 - t))
