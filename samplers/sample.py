"""Sampling: runs a solver on a grid of times."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .one_step import OneStep, check_times
from .protocols import Solver


@torch.no_grad()
def sample(solver: Solver, x: Tensor, times: Tensor, last: OneStep | None = None) -> Tensor:
    """Return the state at the last of `times`, of x's shape (B, *) and dtype. No gradients are recorded.

    For gradients or intermediate states, use `trajectory`, or loop over `solver(x, times)`.

    Args:
        solver: a solver, or any function of (x, times) that yields the state at each time.
        x: the state at times[0], usually noise.
        times: the grid of times, (N,), N >= 2. It is used exactly as given.
        last: a one-step solver for the last interval. Default: `solver`.

    Raises:
        ValueError: `times` is not a grid of at least two times, `solver` is no function, or `last` has no `step`.
    """
    state = x
    for state in _states(solver, x, times, last):  # noqa: B007 (the last one counts)
        pass
    return state


def trajectory(solver: Solver, x: Tensor, times: Tensor, last: OneStep | None = None) -> list[Tensor]:
    """Return the states at all of `times`, of x's shape (B, *) and dtype, starting with x itself.

    Gradients are recorded if they are enabled. The last state is that of `sample`, whose arguments this function takes.

    Raises:
        ValueError: `times` is not a grid of at least two times.
    """
    return [*_states(solver, x, times, last)]


def _states(solver: Solver, x: Tensor, times: Tensor, last: OneStep | None) -> Iterator[Tensor]:
    """Yield the states at all of `times`, the last one by the one-step solver `last` if there is one."""
    if not callable(solver):
        named = "give its fields: sample(plan.solver, x, plan.times)" if hasattr(solver, "solver") else "see samplers"
        raise ValueError(f"the solver must be a function of x and times, got {type(solver).__name__}: {named}")
    times = check_times(times)
    if last is not None and not hasattr(last, "step"):
        raise ValueError(f"`last` must be a one-step solver, such as Euler, Mean or Tweedie, got {type(last).__name__}")
    if len(times) < 2:
        raise ValueError(f"times must have at least two entries, got {times.tolist()}")
    state = x
    for state in solver(x, times if last is None else times[:-1]):
        yield state.to(x.dtype)
    if last is not None:
        yield last.step(state, times[-2], times[-1]).to(x.dtype)
