"""A solver of ODEs that gives every sample a time and a step of its own.

Dormand and Prince's method 5(4), as DOPRI5 in Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I,
II.4-5: it goes on from the solution of order 5, and the last stage of a step is the first of the next. The next step is
SAFETY error^-PRESENT past^PAST of this one, past being the error before: the PI control of Gustafsson, with the gains
0.7/5 and 0.4/5 of Hairer and Wanner II, IV.2.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

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
def solve_each(velocity: Field, x: Tensor, t: float, s: float, *, rtol: float = 1e-5, atol: float = 1e-6) -> Tensor:
    """Return the state at time s, of x's shape (B, *), that the ODE reaches from x at time t; no gradients are kept.

    Each row takes the steps that it would take alone, and is out of the batch once it has reached s, if the field is a
    `RowField`; in the batch of another field it stays, at s, and costs as much as the others.

    Args:
        velocity: asked at times (B,) of x's dtype between t and s only, ends included: each row at its own.
        x: the state at time t.
        t: where to begin.
        s: where to end, before or after t.
        rtol: the error allowed of a step, relative to the state, as the root mean square over a row.
        atol: the same, absolute.

    Raises:
        ValueError: t = s, tolerances that allow no error, or the solution cannot be followed to s.
    """
    t, s = float(t), float(s)
    if not (0 < abs(s - t) < math.inf and rtol >= 0 and atol >= 0 and 0 < rtol + atol < math.inf):
        raise ValueError(f"give t != s, rtol >= 0 and atol >= 0, all finite, one > 0; got {t}, {s}, {rtol}, {atol}")
    field, restrict = velocity, rows_of(velocity)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    column, numbers = (-1, *[1] * (x.ndim - 1)), math.prod(x.shape[1:])
    relative, absolute = math.sqrt(numbers) * rtol, max(math.sqrt(numbers) * atol, torch.finfo(x.dtype).tiny)
    shortest = 10 * torch.finfo(torch.float64).eps * max(abs(t), abs(s))
    low, high = between(t, s, x.dtype)

    def within(times: Tensor) -> Tensor:
        return times.to(x.dtype).clamp(low, high)

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
    k[0] = field(x, within(now))
    h = first_steps(lambda x, times: field(x, within(times)), size, x, k[0], now, s - t)
    while len(x):
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
                break
            if restrict:
                index, x, now, h, past = (each.index_select(0, rest) for each in (index, x, now, h, past))
                k = k.index_select(1, rest)
                field = restrict(index)
        ahead = torch.where((s - now).abs_() <= STRETCH * h, s, torch.add(now, h, alpha=math.copysign(1, s - t)))
        step = ahead - now
        times = within(torch.lerp(now, ahead, nodes)).unbind()
        y, error_speed = take_step(field, x, times, step.view(column).to(x.dtype), k, weights)
        moved = step.abs()
        error = torch.nan_to_num(moved * size(error_speed, torch.maximum(x.abs(), y.abs())), nan=math.inf)
        h = moved * (past * error**-PRESENT).clamp_(SHORTER, LONGER)
        past = SAFETY * error.clamp(0.01, 1) ** PAST
        accepted = error <= 1
        now = torch.where(accepted, ahead, now)
        accepted = accepted.view(column)
        x, k[0] = torch.where(accepted, y, x), torch.where(accepted, k[6], k[0])
    return reached


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


def between(t: float, s: float, dtype: torch.dtype) -> tuple[float, float]:
    """Return the least and the greatest number of a dtype between t and s, for a rounded time may lie beyond."""
    ends = torch.tensor([min(t, s), max(t, s)], dtype=torch.float64)
    rounded = ends.to(dtype)
    beyond = torch.stack([rounded[0] < ends[0], rounded[1] > ends[1]])
    low, high = torch.where(beyond, torch.nextafter(rounded, rounded.flip(0)), rounded).tolist()
    return low, high
