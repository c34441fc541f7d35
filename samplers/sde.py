"""The family of SDEs with the marginals of a path."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from .one_step import at
from .path_from_noise import check_from_noise
from .protocols import Diffusion, Field, Path, ScoredField
from .states import column
from .transforms import has_derivative, is_batched, is_traced


class StochasticEquation(ABC):
    r"""The base class of SDEs $dX = (v + \frac{w}{2} s)\,dt + \sqrt{w}\,dW$. Subclasses return velocity and score."""

    w: Diffusion

    def __post_init__(self) -> None:
        check_diffusion(self.w)

    def __call__(self, x: Tensor, t: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return the drift (B, *) and w(t), of t's shape, at states x and times t, a scalar or (B,).

        Raises:
            ValueError: w(t) is negative or not finite. For KL, w(0) is infinite: start at times[0] > 0.
        """
        w = self.coefficient(t)
        if _is_zero(w):
            return self._velocity(x, t), w  # the ODE, also where the score is infinite
        velocity, score = self._velocity_and_score(x, t)
        return velocity + column(w, score) / 2 * score, w

    def coefficient(self, t: Tensor, /) -> Tensor:
        """Return w(t), of t's shape.

        Raises:
            ValueError: w(t) is negative or not finite.
        """
        return check_coefficient(self.w, t)

    @abstractmethod
    def _velocity(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the velocity, (B, *), in float32 at least. NFE: one."""

    @abstractmethod
    def _velocity_and_score(self, x: Tensor, t: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return velocity and score, (B, *) each, in float32 at least. NFE: one."""


@dataclass(frozen=True)
class SDE(StochasticEquation):
    r"""$dX = (v + \frac{w}{2} s)\,dt + \sqrt{w}\,dW$, for any w(t) >= 0 (SiT, arXiv 2401.08740, eq. 4).

    The score s is computed from the velocity v. NFE: one per call, for drift and diffusion together.

    Raises:
        ValueError: the path is two-sided. Its score is not a function of the velocity: use `SDE.of`.
    """

    velocity: Field
    path: Path
    w: Diffusion

    def __post_init__(self) -> None:
        super().__post_init__()
        check_from_noise(self.path, "SDE(velocity, path, w)")

    @staticmethod
    def of(scored: ScoredField, w: Diffusion) -> "ScoredSDE":
        """Return the SDE of a function (x, t) -> (velocity, score), such as `Bridging.scored` of a network.

        If the function has an attribute `velocity`, a field, it is called where w(t) = 0, so that the score may be
        infinite there.
        """
        return ScoredSDE(scored, w)

    def _velocity(self, x: Tensor, t: Tensor, /) -> Tensor:
        return at(self.velocity, x, t)

    def _velocity_and_score(self, x: Tensor, t: Tensor, /) -> tuple[Tensor, Tensor]:
        velocity = self._velocity(x, t)
        return velocity, self.path.score_from_velocity(velocity, x, t)


@dataclass(frozen=True)
class ScoredSDE(StochasticEquation):
    r"""$dX = (v + \frac{w}{2} s)\,dt + \sqrt{w}\,dW$ of a function that returns v and s, for any w(t) >= 0.

    All solvers of SDEs take it. NFE: one per call. At a time with w(t) = 0, the score is not needed. It may then be
    infinite, if the function has an attribute `velocity`, a field, which is called instead. `Bridging.scored` has it.
    """

    scored: ScoredField
    w: Diffusion

    def _velocity(self, x: Tensor, t: Tensor, /) -> Tensor:
        velocity: Field | None = getattr(self.scored, "velocity", None)
        return self._velocity_and_score(x, t)[0] if velocity is None else at(velocity, x, t)

    def _velocity_and_score(self, x: Tensor, t: Tensor, /) -> tuple[Tensor, Tensor]:
        velocity, score = at(self._stacked, x, t)
        return velocity, score

    def _stacked(self, x: Tensor, t: Tensor) -> Tensor:
        """Return velocity and score as one tensor, (2, B, *).

        Raises:
            ValueError: the function does not return two tensors.
        """
        values = self.scored(x, t)
        if isinstance(values, Tensor) or len(values) != 2:
            raise ValueError("SDE.of takes a function (x, t) -> (velocity, score), such as the `scored` of Bridging")
        return torch.stack(values)


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
            value = values[wrong][0]
            cure = ""
            if value.isinf():
                cure = ": use times at which it is finite, or ExponentialEuler or plan, which do not evaluate it there"
            raise ValueError(f"w(t) must be finite and >= 0, got {value:.6g} at t = {t[wrong][0]:.6g}{cure}")
    return values


def check_sde(sde: object, name: str) -> None:
    """Raise ValueError unless `sde` is an SDE, for the solver of a name."""
    if not hasattr(sde, "coefficient"):
        raise ValueError(f"{name} takes an SDE, not a field: use {name}(SDE(velocity, path, w))")


def _is_zero(w: Tensor) -> bool:
    """Return whether w(t) is 0 at a scalar time, if that can be read without a synchronisation."""
    return not w.ndim and w.device.type == "cpu" and not is_traced(w) and not has_derivative(w) and bool(w == 0)


def safe_sqrt(w: Tensor) -> Tensor:
    """Return the square root of w >= 0, with gradient 0 instead of infinity where w = 0."""
    zero = w == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, w).sqrt())
