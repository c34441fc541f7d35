"""A solver of ODEs that gives every sample a time and a step of its own.

Dormand and Prince's method 5(4), as DOPRI5 in Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I,
II.4-5: it goes on from the solution of order 5, and the last stage of a step is the first of the next. The next step is
SAFETY error^-PRESENT past^PAST of this one, past being the error before: the PI control of Gustafsson, with the gains
0.7/5 and 0.4/5 of Hairer and Wanner II, IV.2.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from .jumps import Piece, pieces
from .one_step import at
from .precision import check_outside_transforms, check_states, wide
from .protocols import Field, rows_of

NODES = (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
SAFETY, PRESENT, PAST = 0.9, 0.7 / 5, 0.4 / 5
SHORTER, LONGER = 0.2, 10.0
"""The bounds of a step's length, relative to the one before."""
STRETCH = 1.1
"""A step that leaves less than a tenth of itself to go reaches the end."""


@torch.no_grad()
def solve_each(
    velocity: Field, x: Tensor, t: float, s: float, *, rtol: float = 1e-5, atol: float = 1e-6, max_steps: int = 10_000
) -> Tensor:
    """Return the state at time s, of x's shape (B, *) and dtype, that the ODE reaches from x at time t.

    Each row takes the steps that it would take alone, and is out of the batch once it has reached s, if the field is a
    `RowField`; in the batch of another field it stays, at s, and costs as much as the others. Where the velocity says
    that it jumps (`jumps`), a step of every row ends. No gradients are kept.

    The state is carried in float32 at least. A velocity of half precision has rounding noise: tolerances below 1e-2
    may then ask for more than it can give.

    Args:
        velocity: asked at times (B,), float32 at least, between t and s only, ends included: each row at its own.
        x: the state at time t.
        t: where to begin.
        s: where to end, before or after t.
        rtol: the error allowed of a step, relative to the state, as the root mean square over a row.
        atol: the same, absolute.
        max_steps: how many steps may be tried, from each jump to the next.

    Raises:
        ValueError: t = s, tolerances that allow no error, or the solution cannot be followed to s in so many steps.
    """
    t, s = float(t), float(s)
    if not (0 < abs(s - t) < math.inf and rtol >= 0 and atol >= 0 and 0 < rtol + atol < math.inf and max_steps > 0):
        raise ValueError(
            "give t != s, rtol >= 0 and atol >= 0, all finite, one > 0, and max_steps >= 1; "
            f"got {t}, {s}, {rtol}, {atol} and {max_steps}"
        )
    check_outside_transforms(x)
    check_states(x)
    state = x.to(wide(x.dtype))
    if x.numel():
        for piece in pieces(velocity, t, s, state.dtype):
            state = _solve_piece(velocity, state, x.dtype, piece, rtol, atol, max_steps)
    return state.to(x.dtype)


def _solve_piece(
    velocity: Field, x: Tensor, dtype: torch.dtype, piece: Piece, rtol: float, atol: float, max_steps: int
) -> Tensor:
    """Return the states at the end of a piece on which the velocity is smooth; it is asked in `dtype`."""
    t, s = piece.t, piece.s
    field, restrict = velocity, rows_of(velocity)
    column, numbers = (-1, *[1] * (x.ndim - 1)), math.prod(x.shape[1:])
    relative, absolute = math.sqrt(numbers) * rtol, max(math.sqrt(numbers) * atol, torch.finfo(x.dtype).tiny)
    shortest = 10 * torch.finfo(torch.float64).eps * max(abs(t), abs(s))

    def ask(field: Field, state: Tensor, times: Tensor) -> Tensor:
        return at(field, state.to(dtype), times.to(state.dtype).clamp(piece.low, piece.high)).to(state.dtype)

    def size(error: Tensor, state: Tensor) -> Tensor:
        share = error / (relative * state).add_(absolute)
        norm: Tensor = torch.linalg.vector_norm(share.reshape(len(x), numbers), dim=1, dtype=torch.float64)
        return norm

    nodes = torch.tensor(NODES, dtype=torch.float64, device=x.device)[:, None]
    weights = [torch.tensor(each, dtype=x.dtype, device=x.device).view(*column, 1) for each in (*STAGES, ERROR)]
    reached, index = torch.empty_like(x), torch.arange(len(x), device=x.device)
    now = torch.full((len(x),), t, dtype=torch.float64, device=x.device)
    past = torch.full_like(now, SAFETY)
    k = x.new_empty(len(NODES), *x.shape)
    k[0] = ask(field, x, now)
    h = first_steps(lambda x, times: ask(field, x, times), size, x, k[0], now, s - t)
    for _ in range(max_steps + 1):
        h = h.bfloat16().double()  # coarsely, lest steps follow how a row is rounded in one batch and in another
        if not ((now != s) & (h >= shortest)).all():
            done = now == s
            stuck = now[~(done | (h >= shortest))]
            if len(stuck):
                raise ValueError(
                    f"a step at t = {stuck[0]:.6g}, from {t} to {s}, became too short for {rtol = } and {atol = }: "
                    "allow larger errors, or stay away from an end at which the velocity is infinite"
                )
            rest = torch.nonzero(~done)[:, 0]
            if restrict or not len(rest):
                reached.index_copy_(0, index, x)
            if not len(rest):
                return reached
            if restrict:
                index, x, now, h, past = (each.index_select(0, rest) for each in (index, x, now, h, past))
                k = k.index_select(1, rest)
                field = restrict(index)
        ahead = torch.where((s - now).abs_() <= STRETCH * h, s, torch.add(now, h, alpha=math.copysign(1, s - t)))
        step = ahead - now
        times = torch.lerp(now, ahead, nodes).unbind()
        y, error_speed = take_step(partial(ask, field), x, times, step.view(column).to(x.dtype), k, weights)
        moved = step.abs()
        error = torch.nan_to_num(moved * size(error_speed, torch.maximum(x.abs(), y.abs())), nan=math.inf)
        h = moved * (past * error**-PRESENT).clamp_(SHORTER, LONGER)
        past = SAFETY * error.clamp(0.01, 1) ** PAST
        accepted = error <= 1
        now = torch.where(accepted, ahead, now)
        accepted = accepted.view(column)
        x, k[0] = torch.where(accepted, y, x), torch.where(accepted, k[6], k[0])
    raise ValueError(
        f"{max_steps} steps (max_steps) do not lead from {t} to {s}: allow larger errors or more steps, or stay away "
        "from an end at which the velocity is infinite"
    )


def take_step(
    field: Field, x: Tensor, times: Sequence[Tensor], step: Tensor, k: Tensor, weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the states after a step and their errors divided by it, and fill the stages k (7, B, *) but for k[0].

    By products and sums, not by matmul, which autocast and TF32 would round.
    """
    for i, (time, weight) in enumerate(zip(times[1:], weights[:-1], strict=True), 1):
        y = torch.addcmul(x, step, (weight * k[:i]).sum(0))
        k[i] = field(y, time)
    return y, (weights[-1] * k).sum(0)


def first_steps(
    ask: Field, size: Callable[[Tensor, Tensor], Tensor], x: Tensor, first: Tensor, t: Tensor, span: float
) -> Tensor:
    """Return the length (B,) of each row's first step, for one call within `span` (Hairer, Norsett and Wanner, II.4).

    `size` measures differences (B, *) against what is allowed of states as large as its second argument; `first` is the
    velocity at the states x and times t.
    """
    scale, column = x.abs(), (-1, *[1] * (x.ndim - 1))
    state, speed = size(x, scale), size(first, scale)
    probe = torch.where((state < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * state / speed).clamp_(max=abs(span))
    step = math.copysign(1, span) * probe
    second = ask(torch.addcmul(x, step.view(column).to(x.dtype), first), t + step)
    rate = torch.maximum(speed, size(second - first, scale) / probe)
    guess = torch.where(rate <= 1e-15, (probe * 1e-3).clamp_(min=1e-6), (0.01 / rate) ** 0.2)
    return torch.minimum(100 * probe, guess)
