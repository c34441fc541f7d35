"""ODE solvers with adaptive steps, from torchdiffeq.

By default, torchdiffeq steps past the end of the interval and interpolates, and evaluates the field outside of the
interval to choose its first step. There, a field may be NaN. Here, the last step ends exactly at the end, and the field
is evaluated inside the interval only.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .jumps import SmoothInterval, smooth_intervals
from .one_step import at
from .protocols import Field
from .states import check_states, flatten_rows, upcast
from .transforms import check_outside_transforms

RUNGE_KUTTA = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
FIXED = ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams", "fixed_adams")
METHODS = (*RUNGE_KUTTA, "scipy_solver", *FIXED)


@torch.no_grad()
def adaptive(
    velocity: Field,
    x: Tensor,
    t: float,
    s: float,
    *,
    method: str = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-6,
    steps: int = 100,
    max_steps: int = 10_000,
) -> Tensor:
    """Solve the ODE dx/dt = velocity(x, t) from t to s. Return the state at s, of x's shape (B, *) and dtype.

    All rows of the batch use the same steps, which are chosen by the row with the largest error. The result of a row
    therefore depends on the other rows, within the tolerances. `solve_each` chooses steps for each row separately.
    Steps end at the times in the attribute `jumps` of the velocity. No gradients are recorded: for these, use `RK4`.

    The state is carried in float32 at least. A half-precision velocity has rounding noise, and tolerances below 1e-2
    may then be unreachable.

    Args:
        velocity: the velocity field. It is evaluated at times between t and s only, ends included.
        x: the state at time t.
        t: the start time.
        s: the end time, before or after t.
        method: the name of a method of torchdiffeq.
        rtol: the relative tolerance of a step.
        atol: the absolute tolerance of a step.
        steps: the number of equal steps of methods without adaptive steps.
        max_steps: the maximum number of steps of adaptive methods between two jumps.

    Raises:
        ValueError: t = s, the method is unknown, tolerances are invalid, or they cannot be met within `max_steps`.
    """

    def right_side(time: Tensor, state: Tensor) -> Tensor:
        return at(velocity, state.to(x.dtype), time).to(state.dtype)

    check_states(x)
    control = StepControl(method, rtol, atol, steps, max_steps)
    return solve(right_side, velocity, upcast(x), t, s, control, max_row_rms).to(x.dtype)


class StepControl(NamedTuple):
    """The arguments of `adaptive` that control its steps."""

    method: str
    rtol: float
    atol: float
    steps: int
    max_steps: int


def solve(
    right_side: Callable[[Tensor, Tensor], Tensor],
    velocity: Field,
    x: Tensor,
    t: float,
    s: float,
    control: StepControl,
    norm: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return the solution at s of dx/dt = right_side(t, x), with steps that end at the jumps of the velocity.

    A step is accepted if `norm` of the errors divided by their tolerances is at most 1. The right side is called with
    scalar times in x's dtype.

    Raises:
        ValueError: as `adaptive`.
    """
    t, s, method = float(t), float(s), control.method
    if t == s or method not in METHODS or control.steps < 1 or control.max_steps < 1:
        raise ValueError(
            f"give t != s, steps >= 1, max_steps >= 1 and a method of {', '.join(METHODS)}; "
            f"got {t}, {s}, {control.steps}, {control.max_steps} and '{method}'"
        )
    if not (control.rtol >= 0 and control.atol >= 0 and 0 < control.rtol + control.atol < math.inf):
        raise ValueError(f"give rtol >= 0 and atol >= 0, all finite, one > 0; got {control.rtol} and {control.atol}")
    check_outside_transforms(x)
    if not x.numel():
        return x
    for interval in smooth_intervals(velocity, t, s, x.dtype):
        x = _solve_smooth(right_side, x, interval, control, norm)
    return x


def _solve_smooth(
    right_side: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    interval: SmoothInterval,
    control: StepControl,
    norm: Callable[[Tensor], Tensor],
) -> Tensor:
    import torchdiffeq  # noqa: PLC0415 (imported on use, because it takes a second)

    method = control.method
    count = control.steps + 1 if method in FIXED else 2
    times = torch.linspace(interval.t, interval.s, count, dtype=torch.float64, device=x.device)
    options = (
        {
            "step_t": times[-1:],
            "norm": lambda errors: norm(errors.reshape(x.shape)),
            "max_num_steps": control.max_steps,
        }
        if method in RUNGE_KUTTA
        else None
    )
    try:
        states = torchdiffeq.odeint(
            lambda time, state: right_side(time.to(x.dtype).clamp(interval.low, interval.high), state),
            x,
            times,
            method=method,
            rtol=control.rtol,
            atol=control.atol,
            options=options,
        )
    except AssertionError as error:
        raise ValueError(
            f"{method} cannot go from {interval.t} to {interval.s} ({error}): increase the tolerances or max_steps "
            f"(now {control.max_steps}), or stay away from an end at which the velocity is infinite"
        ) from None
    final: Tensor = states[-1]
    return final


def max_row_rms(errors: Tensor) -> Tensor:
    """Return the maximum over rows of the root mean square of errors (B, *)."""
    return torch.amax(flatten_rows(errors).square().mean(1)).sqrt()
