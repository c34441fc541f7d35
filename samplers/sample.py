"""Sampling: runs a solver on a grid of times."""

import torch
from torch import Tensor

from .one_step import OneStep, check_times
from .protocols import Solver


@torch.no_grad()
def sample(solver: Solver, x: Tensor, times: Tensor, last: OneStep | None = None) -> Tensor:
    """Return the state at the last of `times`, of x's shape (B, *) and dtype. No gradients are recorded.

    Args:
        solver: a solver, or any function of (x, times) that yields the state at each time.
        x: the state at times[0], usually noise.
        times: the grid of times, (N,), N >= 2. It is used exactly as given.
        last: a one-step solver for the last interval. Default: `solver`.

    Raises:
        ValueError: `times` is not a grid of at least two times.
    """
    times = check_times(times)
    if len(times) < 2:
        raise ValueError(f"times must have at least two entries, got {times.tolist()}")
    state = x
    for state in solver(x, times if last is None else times[:-1]):  # noqa: B007 (the last one counts)
        pass
    return (state if last is None else last.step(state, times[-2], times[-1])).to(x.dtype)
