"""DiT's objective: the noise and the variances of the reverse steps of a discrete diffusion chain."""

import math
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from .channels import split_channels
from .converted_output import ConvertedOutput
from .kinds_of_paths import check_from_noise
from .precision import call_model, per_sample_mean, upcast
from .protocols import Field, MarkovPath


@dataclass(frozen=True)
class Hybrid:
    r"""The squared error of the noise plus the variational bound of one step.

    Source: Nichol and Dhariwal, arXiv 2102.09672, eq. 16. The model returns (B, 2 C, ...): the noise, and a value r in
    [-1, 1] that interpolates the log-variance of the step between its lower (r = -1) and upper bound (r = 1). The
    variational bound is in bits per dimension. It is the Kullback-Leibler divergence of the model's step from the
    posterior. For the step to the data, it is the negative log-likelihood of 8-bit pixels in [-1, 1]. Only r receives
    gradients from it.

    Draw t from `Grid(steps)`. A step goes from t to t + 1 / steps. For the step to the data, the posterior variance is
    0, and the lower bound of the variance is that of the previous step.

    Raises:
        ValueError: `steps` is less than 2, or the path is two-sided.
    """

    path: MarkovPath
    steps: int = 1000

    def __post_init__(self) -> None:
        check_from_noise(self.path, "Hybrid")
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
            ValueError: shapes do not match, or alpha = 0 at a time, where the bound is infinite.
        """
        error, bound = self.terms(model, x, eps, t)
        return error + bound

    def terms(self, model: Field, x: Tensor, eps: Tensor, t: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return the squared error of the noise and the bound, each (B,), for the arguments of the loss."""
        if t.shape != x.shape[:1]:
            raise ValueError(f"t must have shape ({len(x)},) as x has {len(x)} rows, got {tuple(t.shape)}")
        x, eps, t, dtype = upcast(x), upcast(eps), upcast(t), x.dtype
        self._check_times(t)
        x_t = self.path.mix(x, eps, t)
        predicted, fraction = _split(call_model(model, x_t, t, dtype), x)
        return per_sample_mean((predicted - eps).square()), self._bound(predicted.detach(), fraction, x, x_t, t)

    def field(self, model: Field, /) -> Field:
        """Return the velocity field of the model's noise prediction."""
        return ConvertedOutput(
            model, lambda output, x_t, t: self.path.velocity_from_noise(_split(output, x_t)[0], x_t, t), channels=2
        )

    def _check_times(self, t: Tensor) -> None:
        """Raise ValueError if alpha = 0 at a time. Times are only read for paths with alpha(0) = 0."""
        traced = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(t)
        if traced or self.path.alpha(torch.zeros((), device="cpu")) > 0 or (self.path.alpha(t) != 0).all():
            return
        raise ValueError(
            f"the bound is infinite where alpha = 0, as at t = 0 of {self.path}, because the noise does not determine "
            "the data there: draw times > 0, or use a path with alpha(0) > 0, such as DDPM or VP"
        )

    def _bound(self, predicted: Tensor, fraction: Tensor, x: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the variational bound of the step from t, (B,), in bits per dimension."""

        def column(values: Tensor) -> Tensor:
            return values.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))

        last = t > 1 - 1.5 / self.steps
        s = torch.where(last, 1.0, t + 1 / self.steps)
        posterior, previous = self.path.posterior(t, s), self.path.posterior((t - 1 / self.steps).clamp(min=0), t)
        low = column(torch.where(last, previous.variance, posterior.variance).log())
        log_variance = torch.lerp(low, column(posterior.forward.log()), (fraction + 1) / 2)
        data = (x_t - column(self.path.sigma(t)) * predicted) / column(self.path.alpha(t))
        mean_error = column(posterior.data) * (x - data)
        divergence = (log_variance - low + (low - log_variance).exp() + mean_error**2 * (-log_variance).exp() - 1) / 2
        nll = -_log_pixel(x, data, log_variance / 2)  # the mean of the last step is the predicted data
        return per_sample_mean(torch.where(column(last) > 0, nll, divergence)) / math.log(2)


def _split(output: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two halves of the output's channels: the noise, and r of the log-variance."""
    return split_channels(output, x, "noise and variance range")


def _log_pixel(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return the log-probability of the 8-bit bin around x under N(mean, std^2). The end bins extend to infinity.

    The normal distribution function is Page's approximation by tanh (1977), as in the published code.
    """

    def cdf(edge: Tensor) -> Tensor:
        z = (edge - mean) * (-log_std).exp()
        return (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2

    below, above = cdf(x + 1 / 255), 1 - cdf(x - 1 / 255)
    probability = torch.where(x < -0.999, below, torch.where(x > 0.999, above, below + above - 1))
    return probability.clamp(min=1e-12).log()
