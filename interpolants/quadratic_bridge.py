"""A bridge whose noise grows at a finite rate."""

from dataclasses import dataclass

from torch import Tensor

from .straight_bridge import StraightBridge
from .two_sided import check_scale


@dataclass(frozen=True)
class QuadraticBridge(StraightBridge):
    r"""$\alpha = t$, $\beta = 1 - t$, $\gamma = a\,t(1-t)$ with a = scale.

    Source: Albergo, Boffi and Vanden-Eijnden, arXiv 2303.08797, sec. 3. gamma_dot is a and -a at the ends.

    Raises:
        ValueError: `scale` is negative or not finite.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def gamma(self, t: Tensor) -> Tensor:
        """Return scale t (1 - t)."""
        return self.scale * t * (1 - t)

    def gamma_dot(self, t: Tensor) -> Tensor:
        """Return scale (1 - 2 t)."""
        return self.scale * (1 - 2 * t)
