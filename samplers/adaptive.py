"""Solvers of ODEs that choose their own steps: torchdiffeq's.

Left to themselves, its methods step past the end and interpolate back, and guess their first step by asking anywhere;
there sigma may be no number. Here the last step ends at the end, and no time beyond the interval is ever asked for.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .one_step import at
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
) -> Tensor:
    """Return the state at time s, of x's shape (B, *), that the ODE reaches from x at time t; no gradients are kept.

    A step is as long as the tolerances allow to the row that allows least: the rows' states are of one grid, and a row
    depends on its batch mates by as much as the tolerances.

    Args:
        velocity: asked at times between t and s only, ends included.
        x: the state at time t.
        t: where to begin.
        s: where to end, before or after t.
        method: the name of one of torchdiffeq's.
        rtol: the error allowed of a step, relative to the state.
        atol: the same, absolute.
        steps: how many equal steps a method takes that cannot adapt them.

    Raises:
        ValueError: t = s, an unknown method, or the solution cannot be followed to s.
    """
    return solve(lambda time, state: at(velocity, state, time), x, t, s, method, rtol, atol, steps, worst_row)


def solve(
    right_side: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    t: float,
    s: float,
    method: str,
    rtol: float,
    atol: float,
    steps: int,
    norm: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return the solution at s of dx/dt = right_side(t, x), for a scalar t; the other arguments are `adaptive`'s.

    A step is accepted if the norm of the errors, each divided by what is allowed, is at most 1.

    Raises:
        ValueError: as `adaptive`.
    """
    import torchdiffeq  # noqa: PLC0415 (it takes a second, and most samplers do without)

    t, s = float(t), float(s)
    if t == s or method not in METHODS or steps < 1:
        raise ValueError(
            f"give t != s, steps >= 1 and a method of {', '.join(METHODS)}; got {t}, {s}, {steps} and '{method}'"
        )
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    low, high = min(t, s), max(t, s)
    times = torch.linspace(t, s, steps + 1 if method in FIXED else 2, dtype=torch.float64, device=x.device)
    options = (
        {"step_t": times[-1:], "norm": lambda errors: norm(errors.reshape(x.shape))} if method in RUNGE_KUTTA else None
    )
    try:
        states = torchdiffeq.odeint(
            lambda time, state: right_side(time.clamp(low, high), state),
            x,
            times,
            method=method,
            rtol=rtol,
            atol=atol,
            options=options,
        )
    except AssertionError as error:
        raise ValueError(
            f"{method} cannot go from {t} to {s} ({error}): stay away from an end at which the velocity is infinite"
        ) from None
    reached: Tensor = states[-1]
    return reached


def worst_row(errors: Tensor) -> Tensor:
    """Return the largest root mean square of a row of errors (B, *)."""
    return torch.amax(errors.reshape(len(errors), -1).square().mean(1)).sqrt()
