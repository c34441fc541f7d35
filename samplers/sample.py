"""From noise to data."""

import torch
from torch import Tensor

from .one_step import OneStep, check_times
from .protocols import Solver


@torch.no_grad()
def sample(solver: Solver, x: Tensor, times: Tensor, last: OneStep | None = None) -> Tensor:
    """Return the state, of x's shape (B, *) and dtype, that `solver` reaches from x along `times`.

    No gradients are kept.

    Args:
        solver: a `OneStep`, or any function of (x, times) that yields the state at each time.
        x: the state at times[0]: noise, to draw samples.
        times: the grid, (N,), N >= 2, from which nothing is hidden: no interval, no epsilon.
        last: takes the last interval, if given.

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
