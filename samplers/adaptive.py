"""Solvers of ODEs that choose their own steps: torchdiffeq's.

Left to themselves, its methods step past the end and interpolate back, and guess their first step by asking anywhere;
there sigma may be no number. Here the last step ends at the end, and no time beyond the interval is ever asked for.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .jumps import Piece, pieces
from .one_step import at
from .precision import check_outside_transforms, check_states, flat, wide
from .protocols import Field

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
    """Return the state at time s, of x's shape (B, *) and dtype, that the ODE reaches from x at time t.

    A step is as long as the tolerances allow to the row that allows least: the rows' states are of one grid, and a row
    depends on its batch mates by as much as the tolerances. Where the velocity says that it jumps (`jumps`), a step
    ends. No gradients are kept.

    The state is carried in float32 at least. A velocity of half precision has rounding noise: tolerances below 1e-2
    may then ask for more than it can give.

    Args:
        velocity: asked at times between t and s only, ends included.
        x: the state at time t.
        t: where to begin.
        s: where to end, before or after t.
        method: the name of one of torchdiffeq's.
        rtol: the error allowed of a step, relative to the state.
        atol: the same, absolute.
        steps: how many equal steps a method takes that cannot adapt them.
        max_steps: how many steps a method may take that adapts them, from each jump to the next.

    Raises:
        ValueError: t = s, an unknown method, tolerances that allow no error, or the solution cannot be followed to s in
            so many steps.
    """

    def right_side(time: Tensor, state: Tensor) -> Tensor:
        return at(velocity, state.to(x.dtype), time).to(state.dtype)

    check_states(x)
    control = Control(method, rtol, atol, steps, max_steps)
    return solve(right_side, velocity, x.to(wide(x.dtype)), t, s, control, worst_row).to(x.dtype)


class Control(NamedTuple):
    """How steps are chosen; `adaptive` says what each means."""

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
    control: Control,
    norm: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return the solution at s of dx/dt = right_side(t, x), for a scalar t, stopping at the jumps of the velocity.

    A step is accepted if the norm of the errors, each divided by what is allowed, is at most 1. The right side is given
    times that are numbers of x's dtype.

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
    for piece in pieces(velocity, t, s, x.dtype):
        x = _solve_piece(right_side, x, piece, control, norm)
    return x


def _solve_piece(
    right_side: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    piece: Piece,
    control: Control,
    norm: Callable[[Tensor], Tensor],
) -> Tensor:
    import torchdiffeq  # noqa: PLC0415 (it takes a second, and most samplers do without)

    method = control.method
    count = control.steps + 1 if method in FIXED else 2
    times = torch.linspace(piece.t, piece.s, count, dtype=torch.float64, device=x.device)
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
            lambda time, state: right_side(time.to(x.dtype).clamp(piece.low, piece.high), state),
            x,
            times,
            method=method,
            rtol=control.rtol,
            atol=control.atol,
            options=options,
        )
    except AssertionError as error:
        raise ValueError(
            f"{method} cannot go from {piece.t} to {piece.s} ({error}): allow larger errors or more steps "
            f"(max_steps = {control.max_steps}), or stay away from an end at which the velocity is infinite"
        ) from None
    reached: Tensor = states[-1]
    return reached


def worst_row(errors: Tensor) -> Tensor:
    """Return the largest root mean square of a row of errors (B, *)."""
    return torch.amax(flat(errors).square().mean(1)).sqrt()
