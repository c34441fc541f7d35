"""The path of a Brownian bridge between source and data."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .straight_bridge import StraightBridge
from .two_sided import check_scale


@dataclass(frozen=True)
class Bridge(StraightBridge):
    r"""The Brownian bridge: $\alpha = t$, $\beta = 1 - t$, $\gamma = \sqrt{a\,t(1-t)}$ with a = scale.

    Given source and data, it has the marginals of a Brownian motion of variance a per unit of time (Albergo, Boffi and
    Vanden-Eijnden, arXiv 2303.08797, table 2). gamma_dot is infinite at both ends, where gamma gamma_dot is
    a/2 and -a/2.

    Raises:
        ValueError: `scale` is negative or not finite.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def gamma(self, t: Tensor) -> Tensor:
        """Return sqrt(scale t (1 - t))."""
        return torch.sqrt(self.scale * t * (1 - t))

    def gamma_dot(self, t: Tensor) -> Tensor:
        """Return scale (1 - 2 t) / (2 gamma). It is infinite at both ends."""
        return self.gamma_gamma_dot(t) / self.gamma(t) if self.scale else torch.zeros_like(t)

    def gamma_gamma_dot(self, t: Tensor) -> Tensor:
        """Return scale (1 - 2 t) / 2."""
        return self.scale * (1 - 2 * t) / 2
