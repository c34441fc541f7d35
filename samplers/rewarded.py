"""Samples that are rewarded: guidance by the gradient of any log-likelihood of the data."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from numbers import Real

import torch
from torch import Tensor

from .data_prediction import DERIVATIVE_FROM, check_derivative_from, predict_data
from .jumps import jumps_of
from .path_from_noise import check_from_noise
from .protocols import Field, Path, rows_method
from .transforms import is_traced
from .vjp import value_and_vjp


@dataclass(frozen=True, eq=False)
class Rewarded:
    r"""The velocity of samples from the density of the data, times $\ell(x)^\mathrm{scale}$, approximately.

    Let D be the data that the velocity predicts, $J = \partial D/\partial x_t$, and $\Delta = \dot\alpha\sigma -
    \alpha\dot\sigma$. The field is

    $$v + \mathrm{scale}\,\sigma\Big(\frac{\dot\alpha\sigma}{\alpha} - \dot\sigma\Big)\nabla_{x_t}\log\ell(D(x_t, t))
      = v + \mathrm{scale}\,\frac{\Delta\sigma}{\alpha}\,J^\top\,\nabla\log\ell(D).$$

    It takes the likelihood of the mean D of x given $x_t$ for the mean of the likelihood (DPS, Chung et al.,
    arXiv 2209.14687, eq. 9). It is exact for a normal prior and a log-likelihood that is linear in x, after
    `derivative_from`. For observations that are linear in x, `MomentMatching` is more accurate.

    Cost: one NFE, which `Counted` counts, one vector-Jacobian product of the velocity, which it does not count, and
    value and gradient of the log-likelihood. A call with a gradient counts double: an evaluation takes about two
    network passes. Before `derivative_from`, and at all times in traced functions, it takes another NFE.

    The result has the dtype of x, and is computed in float32 at least. With gradients enabled, it is differentiable.
    Restriction to rows (`RowField`) needs a velocity and a log-likelihood that have the method `rows`.

    Args:
        velocity: a velocity field along `path`, differentiable by the state.
        path: the path of the velocity.
        log_likelihood: a differentiable function of data (B, *), float32 at least, to (B,), such as the log-probability
            of a class or a reward.
        scale: the factor of the log-likelihood, one number.
        derivative_from: the least time at which the velocity is differentiated. At earlier times, J / alpha of this
            time is used, because it is 0 / 0 at t = 0. Increase it for networks whose J is inaccurate near t = 0, and
            for half precision.

    Raises:
        ValueError: scale is not finite, or `derivative_from` is not inside (0, 1).
    """

    velocity: Field
    path: Path
    log_likelihood: Callable[[Tensor], Tensor]
    scale: float = 1.0
    derivative_from: float = field(default=DERIVATIVE_FROM, kw_only=True)

    def __post_init__(self) -> None:
        check_from_noise(self.path, "Rewarded")
        if not callable(self.log_likelihood):
            raise ValueError(f"log_likelihood must be a function, got {type(self.log_likelihood).__name__}")
        if not (isinstance(self.scale, Real) and math.isfinite(self.scale)):
            raise ValueError(f"scale must be a finite number, got {self.scale}")
        check_derivative_from(self.derivative_from)

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the guided velocity, (B, *), at states x and times t (B,).

        Raises:
            ValueError: the velocity or the log-likelihood is not differentiable, the log-likelihood is not of shape
                (B,), or the velocity is infinite.
        """
        prediction = predict_data(self.velocity, self.path, x, t, self.derivative_from)
        value, vjp = value_and_vjp(self.log_likelihood, prediction.data, "log_likelihood")
        if value.shape != x.shape[:1]:
            raise ValueError(
                f"log_likelihood must return one number for each row, of shape ({len(x)},), got {tuple(value.shape)}: "
                "sum over the other dimensions"
            )
        if value.device.type == "cpu" and not is_traced(value) and value.isnan().any():
            raise ValueError("log_likelihood must be finite, got nan for a row of the predicted data")
        change = prediction.vjp(vjp(torch.ones_like(value)))
        return (prediction.velocity + self.scale * prediction.correction * change).to(x.dtype)

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times at which the velocity is discontinuous."""
        return jumps_of(self.velocity)

    @property
    def rows(self) -> Callable[[Tensor], "Rewarded"]:
        """A function from `index` (N,) to the field of those rows. It exists if velocity and likelihood have `rows`.

        Raises:
            AttributeError: the velocity or the log-likelihood has no method `rows`.
        """
        velocity, likelihood = rows_method(self.velocity), rows_method(self.log_likelihood)
        if velocity is None or likelihood is None:
            raise AttributeError("the velocity or log_likelihood has no method `rows`, so this field has none")
        return lambda index: replace(self, velocity=velocity(index), log_likelihood=likelihood(index))
