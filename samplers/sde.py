"""The family of SDEs with the marginals of a path."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .one_step import at
from .protocols import Diffusion, Field, Path
from .states import column
from .transforms import has_derivative, is_batched, is_traced


@dataclass(frozen=True)
class SDE:
    r"""$dX = (v + \frac{w}{2} s)\,dt + \sqrt{w}\,dW$, for any w(t) >= 0 (SiT, arXiv 2401.08740, eq. 4).

    The score s is computed from the velocity v. NFE: one per call, for drift and diffusion together.
    """

    velocity: Field
    path: Path
    w: Diffusion

    def __post_init__(self) -> None:
        check_diffusion(self.w)

    def __call__(self, x: Tensor, t: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return the drift (B, *) and w(t), of t's shape, at states x and times t, a scalar or (B,).

        Raises:
            ValueError: w(t) is negative or not finite. For KL, w(0) is infinite: start at times[0] > 0.
        """
        w = self.coefficient(t)
        velocity = at(self.velocity, x, t)
        if _is_zero(w):
            return velocity, w  # the ODE, also where the score is infinite
        score = self.path.score_from_velocity(velocity, x, t)
        return velocity + column(w, score) / 2 * score, w

    def coefficient(self, t: Tensor, /) -> Tensor:
        """Return w(t), of t's shape.

        Raises:
            ValueError: w(t) is negative or not finite.
        """
        return check_coefficient(self.w, t)


def check_diffusion(w: Diffusion | None) -> None:
    """Raise ValueError unless w is a function or None."""
    if w is not None and not callable(w):
        raise ValueError(f"w must be a function of the time, got {w}: use samplers.Constant({w})")


def check_coefficient(w: Diffusion, t: Tensor) -> Tensor:
    """Return w(t), of t's shape and dtype.

    Raises:
        ValueError: w(t) is negative or not finite.
    """
    values = torch.as_tensor(w(t), dtype=t.dtype, device=t.device).expand(t.shape)
    if not (torch.compiler.is_compiling() or is_batched(values)):
        wrong = ~((values >= 0) & torch.isfinite(values))
        if wrong.any():
            raise ValueError(f"w(t) must be finite and >= 0, got {values[wrong][0]:.6g} at t = {t[wrong][0]:.6g}")
    return values


def drift_and_w(sde: SDE, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the drift (B, *) and w(t), of t's shape.

    Raises:
        ValueError: `sde` is a velocity. Two rows of its output would be taken for drift and w.
    """
    values = sde(x, t)
    if isinstance(values, Tensor):
        raise ValueError("the solver needs an SDE, which returns drift and w, got a field: use SDE(velocity, path, w)")
    return values


def _is_zero(w: Tensor) -> bool:
    """Return whether w(t) is 0 at a scalar time, if that can be read without a synchronisation."""
    return not w.ndim and w.device.type == "cpu" and not is_traced(w) and not has_derivative(w) and bool(w == 0)


def safe_sqrt(w: Tensor) -> Tensor:
    """Return the square root of w >= 0, with gradient 0 instead of infinity where w = 0."""
    zero = w == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, w).sqrt())
