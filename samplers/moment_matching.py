"""Posterior samples of linear inverse problems, by moment matching."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from numbers import Integral, Real

from torch import Tensor

from .conjugate_residuals import conjugate_residuals
from .data_prediction import DERIVATIVE_FROM, check_derivative_from, predict_data
from .jumps import jumps_of
from .operators import check_operator
from .path_from_noise import check_from_noise
from .protocols import Field, Path, rows_method
from .states import upcast
from .transforms import is_traced
from .vjp import value_and_vjp


@dataclass(frozen=True, eq=False)
class MomentMatching:
    r"""The velocity of samples of x given an observation y = A x + noise, noise ~ N(0, std^2).

    Moment matching posterior sampling, MMPS (Rozet et al., arXiv 2405.13712, eq. 17-21): given $x_t$, x is taken as
    normal, with the mean D that the velocity predicts and the covariance $gJ$, $g = \sigma^2/\alpha$, $J =
    \partial D/\partial x_t$. The predicted data of the posterior are then

    $$D + gJ^\top A^\top u, \quad (\mathrm{std}^2 + gAJ^\top A^\top)\,u = y - AD.$$

    The system is solved iteratively, by conjugate residuals. For normal priors the field is exact at times from
    `derivative_from` on, if there are as many iterations as y has numbers per row. For others it is an approximation.

    Cost: one NFE, which `Counted` counts, and `iterations` vector-Jacobian products of the velocity, which it does not
    count. A product takes about as long as the call, so an evaluation takes about 1 + `iterations` network passes.
    Before `derivative_from`, and at all times in traced functions, an evaluation takes another NFE.

    The result has the dtype of x, and is computed in float32 at least. With gradients enabled, it is differentiable,
    and stores the activations of all products. Restriction to rows (`RowField`) needs a velocity and an operator that
    have the method `rows`.

    Args:
        velocity: a velocity field along `path`, differentiable by the state.
        path: the path of the velocity.
        operator: A, a linear function of (B, *) to (B, ...) that treats each row separately: `Inpainting`,
            `Coarsening` or any function. It is called in float32 at least, and transposed by automatic differentiation.
            On random states, it is tested to be linear, and its transpose and rows, when it is first called with states
            of a shape.
        y: the observation, of the shape of the operator's result for the states. Values that are not observed are 0.
        std: the standard deviation of the noise of y, one number. With 0, the velocity is infinite where sigma = 0.
        iterations: the number of iterations of the linear solver. Few are enough if A is well conditioned.
        derivative_from: the least time at which the velocity is differentiated. At earlier times, the covariance gJ of
            this time is used, because J / alpha is 0 / 0 at t = 0. Increase it for networks whose J is inaccurate near
            t = 0, and for half precision.

    Raises:
        ValueError: y is not a floating point tensor, y or std is not finite, std is negative, `iterations` is not a
            whole number of at least 1, or `derivative_from` is not inside (0, 1).
    """

    velocity: Field
    path: Path
    operator: Callable[[Tensor], Tensor]
    y: Tensor
    std: float
    iterations: int = field(default=5, kw_only=True)
    derivative_from: float = field(default=DERIVATIVE_FROM, kw_only=True)
    _tested: set[object] = field(init=False, repr=False, default_factory=set)
    """The shapes, dtypes and devices of states for which the operator was found to be linear."""

    def __post_init__(self) -> None:
        check_from_noise(self.path, "MomentMatching")
        if not callable(self.operator):
            raise ValueError(f"operator must be a function, got {type(self.operator).__name__}")
        if not (isinstance(self.std, Real) and 0 <= self.std < math.inf):
            raise ValueError(f"std must be a number, at least 0 and finite, got {self.std}")
        if not isinstance(self.iterations, Integral) or self.iterations < 1:
            raise ValueError(f"iterations must be a whole number, at least 1, got {self.iterations}")
        check_derivative_from(self.derivative_from)
        if not isinstance(self.y, Tensor) or not self.y.is_floating_point():
            given = self.y.dtype if isinstance(self.y, Tensor) else type(self.y).__name__
            raise ValueError(f"y must be a floating point tensor, in the units of the states, got {given}")
        if self.y.device.type == "cpu" and not is_traced(self.y) and not self.y.isfinite().all():
            raise ValueError("y must be finite, got nan or inf: give 0 where nothing is observed")

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the velocity of the posterior, (B, *), at states x and times t (B,).

        Raises:
            ValueError: the velocity is not differentiable by x, the operator is not linear, y is not of the shape of
                its result, or the velocity of the posterior is infinite.
        """
        prediction = predict_data(self.velocity, self.path, x, t, self.derivative_from)
        if prediction.noiseless and not self.std:
            raise ValueError(
                "the velocity of the posterior with std = 0 is infinite at t = 1, where sigma = 0: end before it, at "
                "t = 0.999 or the like, or give std > 0"
            )
        observed, transpose = value_and_vjp(self.operator, prediction.data, "the operator")
        self._check_operator(observed, prediction.data)

        def products(p: Tensor) -> tuple[Tensor, Tensor]:
            image = prediction.vjp(transpose(p))
            return image, self.std**2 * p + self.operator(prediction.covariance * image)

        residual = self.y.to(observed) - observed
        change = conjugate_residuals(products, upcast(residual), self.iterations)
        return (prediction.velocity + prediction.correction * change).to(x.dtype)

    def _check_operator(self, observed: Tensor, x: Tensor) -> None:
        """Raise ValueError if the operator's result for x has not the shape of y, or if the operator is not linear."""
        if not observed.is_floating_point():
            raise ValueError(f"the operator must return floating point numbers, got {observed.dtype}")
        if observed.shape != self.y.shape:
            raise ValueError(
                f"y must have the shape of the operator's result, {tuple(observed.shape)} for states {tuple(x.shape)}, "
                f"got {tuple(self.y.shape)}"
            )
        kind = (x.shape, x.dtype, x.device)
        if kind not in self._tested and x.numel() and x.device.type != "meta" and not is_traced(observed):
            check_operator(self.operator, x)
            self._tested.add(kind)

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times at which the velocity is discontinuous."""
        return jumps_of(self.velocity)

    @property
    def rows(self) -> Callable[[Tensor], "MomentMatching"]:
        """A function from `index` (N,) to the field of those rows. It exists if velocity and operator have `rows`.

        Raises:
            AttributeError: the velocity or the operator has no method `rows`.
        """
        velocity, operator = rows_method(self.velocity), rows_method(self.operator)
        if velocity is None or operator is None:
            raise AttributeError("the velocity or the operator has no method `rows`, so this field has none")
        return lambda index: replace(self, velocity=velocity(index), operator=operator(index), y=self.y[index])
