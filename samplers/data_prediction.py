r"""The data that a velocity predicts, and their derivative by the state, for posterior sampling.

Let $D(x_t, t) = E[x \mid x_t]$ be the predicted data, J their derivative by $x_t$, and $\Delta = \dot\alpha\sigma -
\alpha\dot\sigma$. The covariance of x given $x_t$ is $\frac{\sigma^2}{\alpha}J$ (Tweedie's formula of second order). If
the predicted data change by $\frac{\sigma^2}{\alpha}J^\top u$, the velocity changes by
$\frac{\Delta\sigma}{\alpha}J^\top u$, which is 0 where sigma = 0.

Where alpha = 0, J / alpha is 0 / 0, and near it an error of J is divided by a small alpha. Hence at times before
`derivative_from`, the covariance is that of the time `derivative_from` at the same state. For a normal prior of
variance c on `Linear`, its relative error there is c `derivative_from`^2. The velocity and D are always those of t.
"""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from .known_time import known_time, with_known_time
from .protocols import Field, Path
from .states import column, upcast
from .transforms import has_derivative, is_traced
from .vjp import value_and_vjp

DERIVATIVE_FROM = 0.01
"""The default of the least time at which velocities are differentiated."""


@dataclass(frozen=True, eq=False)
class DataPrediction:
    """The velocity, the predicted data D and their derivative J at states x (B, *), in float32 at least."""

    velocity: Tensor
    """(B, *)."""
    data: Tensor
    """(B, *)."""
    vjp: Callable[[Tensor], Tensor]
    """The function u -> J^T u of values (B, *)."""
    covariance: Tensor
    """sigma^2 / alpha, which multiplies J^T u to give the change of D. It broadcasts to the states."""
    correction: Tensor
    """Delta sigma / alpha, which multiplies J^T u to give the change of the velocity. It broadcasts to the states."""
    noiseless: bool
    """Whether sigma = 0 at one of the times. False if times cannot be read without a synchronisation."""


def predict_data(velocity: Field, path: Path, x: Tensor, t: Tensor, derivative_from: float) -> DataPrediction:
    """Return the data that a velocity predicts at states x (B, *) and times t (B,), and their derivative.

    NFE: one, or two if one of the times is before `derivative_from`. In traced functions, which cannot read times: two.

    Raises:
        ValueError: the velocity is not differentiable by x, or the velocity or its correction is infinite.
    """
    time = None if is_traced(t) or has_derivative(t) else known_time(t)
    times = t if time is None else torch.tensor(time, dtype=torch.float64, device="cpu")
    is_early, later = times < derivative_from, times.clamp(min=derivative_from)
    if is_traced(t) or is_early.any():
        v = velocity(x, t)
        t = t.clamp(min=derivative_from)
        t = t if time is None else with_known_time(t, float(later))
        _, velocity_vjp = value_and_vjp(lambda x: velocity(x, _outside_inference_mode(t)), x, "the velocity")
    else:
        v, velocity_vjp = value_and_vjp(lambda x: velocity(x, _outside_inference_mode(t)), x, "the velocity")
    sigma, alpha_later, sigma_later = path.sigma(times), path.alpha(later), path.sigma(later)
    delta = path.alpha_dot(times) * sigma - path.alpha(times) * path.sigma_dot(times)
    noise = torch.where(is_early, sigma_later**2 / torch.where(is_early, sigma, 1), sigma)
    correction = delta * noise / alpha_later
    readable = times.device.type == "cpu" and not is_traced(times)
    if readable and not correction.isfinite().all():
        first = float(times.detach()[~correction.isfinite()].flatten()[0])
        raise ValueError(
            f"{path}: the velocity of posterior samples is not finite at t = {first:.6g}, where sigma = "
            f"{float(sigma.detach()[~correction.isfinite()].flatten()[0]):.3g} and its derivative is infinite: end "
            "before it, at t = 0.999 or the like"
        )
    return DataPrediction(
        upcast(v),
        path.data_from_velocity(v, x, times),
        lambda u: path.data_from_velocity(velocity_vjp(u), u, later),  # linear: the derivative of D is that of v and x
        column(sigma_later**2 / alpha_later, x),
        column(correction, x),
        readable and bool((sigma == 0).any()),
    )


def check_derivative_from(time: float) -> None:
    """Raise ValueError unless a time is inside (0, 1)."""
    if not isinstance(time, Real) or not 0 < time < 1:
        raise ValueError(f"derivative_from must be a time inside (0, 1), got {time}")


def _outside_inference_mode(t: Tensor) -> Tensor:
    """Return times that autograd can save, with the attribute `known_time`."""
    if torch.compiler.is_compiling() or not t.is_inference():
        return t
    copy, time = t.clone(), known_time(t)
    return copy if time is None else with_known_time(copy, time)
