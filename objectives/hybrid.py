"""DiT's objective: noise, and the variance of the reverse steps of a discrete chain."""

import math
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from .precision import asked, mean_of_rows, wide
from .predicted import PredictedVelocity
from .protocols import Field, MarkovPath


@dataclass(frozen=True)
class Hybrid:
    r"""The squared error of the noise plus the variational bound of one step (Nichol and Dhariwal, arXiv 2102.09672,
    eq. 16).

    The model returns (B, 2 C, ...): the noise, and a range r in [-1, 1] that chooses the step's log-variance between
    its two bounds. Only the range learns from the bound, which is the divergence, in bits per dimension, of the model's
    step from the posterior's; for the step to the data it is the negative log-likelihood of 8-bit pixels in [-1, 1].

    Draw t from `Grid(steps)`. The time after t is t + 1 / steps, and the variance of a step to the data, where the
    posterior has none, is bounded by that of the step before.

    Raises:
        ValueError: fewer than 2 steps.
    """

    path: MarkovPath
    steps: int = 1000

    def __post_init__(self) -> None:
        if not isinstance(self.steps, Integral) or self.steps < 2:
            raise ValueError(f"steps must be a whole number, at least 2, got {self.steps}")

    def __call__(self, model: Field, x: Tensor, eps: Tensor, t: Tensor, /) -> Tensor:
        """Return the loss of each sample, (B,), in float32 at least.

        Args:
            model: the network as a field, with twice the channels of x.
            x: data, (B, C, ...).
            eps: noise, (B, C, ...).
            t: times, (B,).

        Raises:
            ValueError: shapes that do not fit one another, or a time at which alpha = 0, where the bound is infinite.
        """
        error, bound = self.terms(model, x, eps, t)
        return error + bound

    def terms(self, model: Field, x: Tensor, eps: Tensor, t: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return the squared error of the noise and the bound, (B,) each; arguments and errors are the loss's."""
        if t.shape != x.shape[:1]:
            raise ValueError(f"t must have shape ({len(x)},) as x has {len(x)} rows, got {tuple(t.shape)}")
        x, eps, t, dtype = wide(x), wide(eps), wide(t), x.dtype
        self._check_times(t)
        x_t = self.path.mix(x, eps, t)
        predicted, between = _split(asked(model, x_t, t, dtype), x)
        return mean_of_rows((predicted - eps).square()), self._bound(predicted.detach(), between, x, x_t, t)

    def field(self, model: Field, /) -> Field:
        """Return the velocity that the network stands for."""
        return PredictedVelocity(
            model, lambda output, x_t, t: self.path.velocity_from_noise(_split(output, x_t)[0], x_t, t), channels=2
        )

    def _check_times(self, t: Tensor) -> None:
        """Raise ValueError for a time at which alpha = 0; only paths that begin there need a look at the times."""
        traced = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(t)
        if traced or self.path.alpha(torch.zeros((), device="cpu")) > 0 or (self.path.alpha(t) != 0).all():
            return
        raise ValueError(
            f"the bound is infinite where alpha = 0, as at t = 0 of {self.path}: the noise says nothing of the data "
            "there; draw times > 0, or take a path that begins with some of the data, as DDPM and VP do"
        )

    def _bound(self, predicted: Tensor, between: Tensor, x: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        def column(values: Tensor) -> Tensor:
            return values.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))

        last = t > 1 - 1.5 / self.steps
        s = torch.where(last, 1.0, t + 1 / self.steps)
        known, before = self.path.posterior(t, s), self.path.posterior((t - 1 / self.steps).clamp(min=0), t)
        low = column(torch.where(last, before.variance, known.variance).log())
        log_variance = torch.lerp(low, column(known.forward.log()), (between + 1) / 2)
        data = (x_t - column(self.path.sigma(t)) * predicted) / column(self.path.alpha(t))
        gap = column(known.data) * (x - data)
        divergence = (log_variance - low + (low - log_variance).exp() + gap**2 * (-log_variance).exp() - 1) / 2
        surprise = -_log_pixel(x, data, log_variance / 2)  # the last step's mean is the data that are expected
        return mean_of_rows(torch.where(column(last) > 0, surprise, divergence)) / math.log(2)


def _split(output: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return noise and range."""
    if x.ndim < 2 or output.shape != (len(x), 2 * x.shape[1], *x.shape[2:]):
        raise ValueError(
            f"the model must return noise and range stacked on x's channels, got {tuple(output.shape)} "
            f"for x {tuple(x.shape)}"
        )
    noise, between = torch.chunk(output, 2, dim=1)
    return noise, between


def _log_pixel(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return the log-probability of the 8-bit bin around x under N(mean, std^2); the end bins reach to infinity.

    The normal distribution function is that of the published code: Page's approximation by tanh (1977).
    """

    def below(edge: Tensor) -> Tensor:
        z = (edge - mean) * (-log_std).exp()
        return (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2

    under, over = below(x + 1 / 255), 1 - below(x - 1 / 255)
    probability = torch.where(x < -0.999, under, torch.where(x > 0.999, over, under + over - 1))
    return probability.clamp(min=1e-12).log()
