"""An adaptive ODE solver with separate steps for each sample of a batch.

The method is that of Dormand and Prince of order 5(4), DOPRI5 in Hairer, Norsett and Wanner, Solving Ordinary
Differential Equations I, II.4-5. It continues from the solution of order 5, and the last stage of a step is the first
stage of the next.

The length of the next step is SAFETY error^-PROPORTIONAL previous_error^INTEGRAL times that of this step: the PI
controller of Gustafsson with the gains 0.7/5 and 0.4/5 (Hairer and Wanner II, IV.2).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from .jumps import SmoothInterval, smooth_intervals
from .one_step import at
from .protocols import Field, rows_method
from .states import check_states, upcast
from .transforms import check_outside_transforms

NODES = (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
"""The times of the stages, as fractions of the step."""
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
"""The Runge-Kutta matrix. The last row also gives the solution of order 5."""
ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""The weights of the stages in the difference of the solutions of order 5 and 4."""
SAFETY, PROPORTIONAL, INTEGRAL = 0.9, 0.7 / 5, 0.4 / 5
MIN_FACTOR, MAX_FACTOR = 0.2, 10.0
"""The bounds of the ratio of the lengths of consecutive steps."""
STRETCH = 1.1
"""A step is extended to the end of the interval if the end is nearer than 1.1 times its length."""


@torch.no_grad()
def solve_each(
    velocity: Field, x: Tensor, t: float, s: float, *, rtol: float = 1e-5, atol: float = 1e-6, max_steps: int = 10_000
) -> Tensor:
    """Solve the ODE dx/dt = velocity(x, t) from t to s. Return the state at s, of x's shape (B, *) and dtype.

    Each row takes the steps that it would take alone. If the velocity is a `RowField`, rows that have reached s are
    removed from the batch. Otherwise they remain in the batch until all rows have reached s. Steps of all rows end at
    the times in the attribute `jumps` of the velocity. No gradients are recorded: for these, use `RK4`.

    The state is carried in float32 at least. A half-precision velocity has rounding noise, and tolerances below 1e-2
    may then be unreachable.

    Args:
        velocity: the velocity field. It is evaluated at times (B,), float32 at least, one per row, between t and s
            only, ends included.
        x: the state at time t.
        t: the start time.
        s: the end time, before or after t.
        rtol: the relative tolerance of a step, for the root mean square over a row.
        atol: the absolute tolerance of a step, for the root mean square over a row.
        max_steps: the maximum number of attempted steps between two jumps.

    Raises:
        ValueError: t = s, tolerances are invalid, or they cannot be met within `max_steps`.
    """
    t, s = float(t), float(s)
    if not (0 < abs(s - t) < math.inf and rtol >= 0 and atol >= 0 and 0 < rtol + atol < math.inf and max_steps > 0):
        raise ValueError(
            "give t != s, rtol >= 0 and atol >= 0, all finite, one > 0, and max_steps >= 1; "
            f"got {t}, {s}, {rtol}, {atol} and {max_steps}"
        )
    check_outside_transforms(x)
    check_states(x)
    state = upcast(x)
    if x.numel():
        for interval in smooth_intervals(velocity, t, s, state.dtype):
            state = _solve_smooth(velocity, state, x.dtype, interval, rtol, atol, max_steps)
    return state.to(x.dtype)


def _solve_smooth(
    velocity: Field, x: Tensor, dtype: torch.dtype, interval: SmoothInterval, rtol: float, atol: float, max_steps: int
) -> Tensor:
    """Return the states at the end of an interval without jumps. The velocity is evaluated at states of `dtype`."""
    t, s = interval.t, interval.s
    field, restrict = velocity, rows_method(velocity)
    per_row, numel = (-1, *[1] * (x.ndim - 1)), math.prod(x.shape[1:])  # a shape that broadcasts (B,), and a row's size
    relative, absolute = math.sqrt(numel) * rtol, max(math.sqrt(numel) * atol, torch.finfo(x.dtype).tiny)
    shortest = 10 * torch.finfo(torch.float64).eps * max(abs(t), abs(s))

    def evaluate(field: Field, state: Tensor, times: Tensor) -> Tensor:
        return at(field, state.to(dtype), times.to(state.dtype).clamp(interval.low, interval.high)).to(state.dtype)

    def error_norm(error: Tensor, state: Tensor) -> Tensor:
        scaled = error / (relative * state).add_(absolute)
        norm: Tensor = torch.linalg.vector_norm(scaled.reshape(len(x), numel), dim=1, dtype=torch.float64)
        return norm

    nodes = torch.tensor(NODES, dtype=torch.float64, device=x.device)[:, None]
    weights = [torch.tensor(each, dtype=x.dtype, device=x.device).view(*per_row, 1) for each in (*STAGES, ERROR)]
    final, rows = torch.empty_like(x), torch.arange(len(x), device=x.device)
    now = torch.full((len(x),), t, dtype=torch.float64, device=x.device)
    control = torch.full_like(now, SAFETY)  # SAFETY previous_error^INTEGRAL
    k = x.new_empty(len(NODES), *x.shape)
    k[0] = evaluate(field, x, now)
    h = first_steps(lambda x, times: evaluate(field, x, times), error_norm, x, k[0], now, s - t)
    for _ in range(max_steps + 1):
        h = h.bfloat16().double()  # coarse, so that rounding errors that depend on the batch do not change steps
        if not ((now != s) & (h >= shortest)).all():
            done = now == s
            stuck = now[~(done | (h >= shortest))]
            if len(stuck):
                raise ValueError(
                    f"a step at t = {stuck[0]:.6g}, from {t} to {s}, became too short for {rtol = } and {atol = }: "
                    "increase the tolerances, or stay away from an end at which the velocity is infinite"
                )
            rest = torch.nonzero(~done)[:, 0]
            if restrict or not len(rest):
                final.index_copy_(0, rows, x)
            if not len(rest):
                return final
            if restrict:
                rows, x, now, h, control = (each.index_select(0, rest) for each in (rows, x, now, h, control))
                k = k.index_select(1, rest)
                field = restrict(rows)
        end = torch.where((s - now).abs_() <= STRETCH * h, s, torch.add(now, h, alpha=math.copysign(1, s - t)))
        step = end - now
        times = torch.lerp(now, end, nodes).unbind()
        y, error_rate = take_step(partial(evaluate, field), x, times, step.view(per_row).to(x.dtype), k, weights)
        length = step.abs()
        error = torch.nan_to_num(length * error_norm(error_rate, torch.maximum(x.abs(), y.abs())), nan=math.inf)
        h = length * (control * error**-PROPORTIONAL).clamp_(MIN_FACTOR, MAX_FACTOR)
        control = SAFETY * error.clamp(0.01, 1) ** INTEGRAL
        accepted = error <= 1
        now = torch.where(accepted, end, now)
        accepted = accepted.view(per_row)
        x, k[0] = torch.where(accepted, y, x), torch.where(accepted, k[6], k[0])
    raise ValueError(
        f"{max_steps} steps (max_steps) do not lead from {t} to {s}: increase the tolerances or max_steps, or stay "
        "away from an end at which the velocity is infinite"
    )


def take_step(
    field: Field, x: Tensor, times: Sequence[Tensor], step: Tensor, k: Tensor, weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Take one step of each row. Return the new states and their error estimates divided by the step.

    The stages k (7, B, *) are filled in, except k[0], which is given. Sums are not computed by matmuls, which autocast
    and TF32 would round.
    """
    for i, (time, weight) in enumerate(zip(times[1:], weights[:-1], strict=True), 1):
        y = torch.addcmul(x, step, (weight * k[:i]).sum(0))
        k[i] = field(y, time)
    return y, (weights[-1] * k).sum(0)


def first_steps(
    field: Field, error_norm: Callable[[Tensor, Tensor], Tensor], x: Tensor, v: Tensor, t: Tensor, span: float
) -> Tensor:
    """Return the length, (B,), of each row's first step, at most |span| (Hairer, Norsett and Wanner, II.4). NFE: one.

    `error_norm` measures differences (B, *) relative to the tolerances at states of the size of its second argument.
    `v` is the velocity at states x and times t.
    """
    scale, per_row = x.abs(), (-1, *[1] * (x.ndim - 1))
    x_norm, v_norm = error_norm(x, scale), error_norm(v, scale)
    trial = torch.where((x_norm < 1e-5) | (v_norm < 1e-5), 1e-6, 0.01 * x_norm / v_norm).clamp_(max=abs(span))
    step = math.copysign(1, span) * trial
    v_trial = field(torch.addcmul(x, step.view(per_row).to(x.dtype), v), t + step)
    rate = torch.maximum(v_norm, error_norm(v_trial - v, scale) / trial)
    length = torch.where(rate <= 1e-15, (trial * 1e-3).clamp_(min=1e-6), (0.01 / rate) ** 0.2)
    return torch.minimum(100 * trial, length)
