"""The family of stochastic differential equations that share one path's marginals."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .one_step import at
from .precision import column
from .protocols import Diffusion, Field, Path
from .times import is_batched


@dataclass(frozen=True)
class SDE:
    r"""$dX = (v + \frac{w}{2} s)\,dt + \sqrt{w}\,dW$, for any w(t) >= 0 (SiT, arXiv 2401.08740, eq. 4).

    The score s follows from the velocity v, so that drift and diffusion cost one call of the network.
    """

    velocity: Field
    path: Path
    w: Diffusion

    def __call__(self, x: Tensor, t: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return the drift (B, *) at states x, and w at t; t is a scalar or has shape (B,), and w has t's shape.

        Raises:
            ValueError: w(t) is negative or not finite. KL's w is infinite at t = 0: start at times[0] > 0.
        """
        w = self.coefficient(t)
        velocity = at(self.velocity, x, t)
        score = self.path.score_from_velocity(velocity, x, t)
        return velocity + column(w, score) / 2 * score, w

    def coefficient(self, t: Tensor, /) -> Tensor:
        """Return w at t, of its shape.

        Raises:
            ValueError: w(t) is negative or not finite.
        """
        return check_coefficient(self.w, t)


def check_coefficient(w: Diffusion, t: Tensor) -> Tensor:
    """Return w at t, of its shape and precision.

    Raises:
        ValueError: w(t) is negative or not finite.
    """
    values = torch.as_tensor(w(t), dtype=t.dtype, device=t.device).expand(t.shape)
    if not (torch.compiler.is_compiling() or is_batched(values)):
        wrong = ~((values >= 0) & torch.isfinite(values))
        if wrong.any():
            raise ValueError(f"w(t) must be finite and >= 0, got {values[wrong][0]:.6g} at t = {t[wrong][0]:.6g}")
    return values
