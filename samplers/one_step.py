"""Solvers without memory: all that such a solver has to say is one step."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from .precision import check_states, wide
from .protocols import Field
from .times import is_batched, know


class OneStep(ABC):
    """A solver that goes from each time to the next without looking back; its call is the loop.

    The loop carries the state in float32 at least, whatever it is given, and yields it in the dtype that it was given.
    A yielded state may be edited in place, as in-painting does: the next step starts from the edited state.
    """

    order: ClassVar[int]
    """The power of the step size by which the error at a fixed time falls; the weak order, where there is noise."""

    @abstractmethod
    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s, of x's shape (B, *), from the state x at time t.

        Both times are scalars or have shape (B,), a time for each row. The result is float32 at least: ask the field by
        `at`, which also gives it the times in the dtype that it expects, and multiply by `column(s - t, x)`.
        """

    def __call__(self, x: Tensor, times: Tensor, /) -> Iterator[Tensor]:
        """Yield the state at each of `times`, the first being x itself.

        Raises:
            ValueError: `times` is not a grid, x is not floating point, or `step` returns half precision.
        """
        grid = check_times(times)
        check_states(x)
        yield x
        dtype = x.dtype
        lost: Tensor | None = None  # what rounding to half precision took from the state
        for t, s in pairwise(grid):
            state = self.step(x, t, s)
            if state.dtype != wide(state.dtype):
                raise ValueError(
                    f"{type(self).__name__}.step must return float32 at least, got {state.dtype}: "
                    "ask the field by `samplers.at`, which returns float32"
                )
            if state.dtype == dtype:
                x = state
                yield x
                continue
            state = state if lost is None else state + lost
            x = state.to(dtype)
            lost, before = state - x, x.clone()
            yield x
            lost = torch.where(x == before, lost, 0)


class StochasticStep(OneStep):
    """A step with noise in it, which leads from noise to data only."""

    def __call__(self, x: Tensor, times: Tensor, /) -> Iterator[Tensor]:
        """Yield the state at each of `times`, the first being x itself.

        Raises:
            ValueError: `times` is not a rising grid, or w is not finite at one of its steps.
        """
        return super().__call__(x, check_rising(times))


def check_times(times: Tensor) -> Tensor:
    """Return the times on the CPU, where looking at them waits for no device, in float32 at least.

    Raises:
        ValueError: `times` is not a grid: one dimension, floating point, finite, rising or falling.
    """
    if times.ndim != 1 or not len(times) or not times.is_floating_point():
        raise ValueError(
            f"times must be floating point and of shape (N,), N >= 1, got {times.dtype} {tuple(times.shape)}"
        )
    times = times.cpu().to(wide(times.dtype))
    if is_batched(times):  # by vmap: no value can be looked at
        return times
    steps = times.detach().diff()
    if not (torch.isfinite(times).all() and ((steps > 0).all() or (steps < 0).all())):
        raise ValueError(f"times must be finite and strictly rising or falling, got {times.tolist()}")
    return times


def check_rising(times: Tensor) -> Tensor:
    """Return the times on the CPU.

    Raises:
        ValueError: `times` is not a rising grid.
    """
    times = check_times(times)
    if len(times) > 1 and not is_batched(times) and times[0] > times[1]:
        raise ValueError(f"noise enters on the way from noise to data: times must rise, got {times.tolist()}")
    return times


def at(field: Field, x: Tensor, t: Tensor) -> Tensor:
    """Return the field, float32 at least, at states x (B, *) and a time for all of them or times (B,).

    The field is asked with x as it is and with times (B,) on its device, in x's dtype or float32, whichever is wider.

    Raises:
        ValueError: times that are neither a scalar nor (B,).
    """
    if t.ndim and t.shape != x.shape[:1]:
        raise ValueError(f"t must be a scalar or have shape ({len(x)},) as x has {len(x)} rows, got {tuple(t.shape)}")
    value = field(x, _of_rows(t, x))
    return value.to(wide(value.dtype))


def _of_rows(t: Tensor, x: Tensor) -> Tensor:
    """Return the times (B,) of states (B, *), on their device, which is not waited for."""
    dtype = wide(x.dtype)
    if t.ndim or t.device.type != "cpu" or torch.compiler.is_compiling() or t.requires_grad or is_batched(t):
        return t.to(x.device, dtype).expand(len(x))
    if t.device != x.device:
        times = torch.full((len(x),), float(t), dtype=dtype, device=x.device)  # an argument of the kernel, not a copy
    else:
        times = t.to(dtype).expand(len(x))
    return know(times, float(t))
