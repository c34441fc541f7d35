"""The base classes of one-step solvers, and the evaluation of fields by solvers."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from .known_time import with_known_time
from .protocols import Field
from .states import check_states, upcast, upcast_dtype
from .transforms import is_batched, is_traced


class OneStep(ABC):
    """The base class of solvers whose step depends on the current state only. A call loops over the grid of times.

    States are carried in float32 at least and yielded in the dtype of x. The first is x itself. A yielded state may be
    edited in place, for example for in-painting. The next step starts from the edited state.

    Gradients with respect to x, the times, and what the step depends on (the network, the path, w) are recorded. The
    grid may start and end at any times at which the step is finite. Times may decrease: then an ODE is solved from data
    to noise.
    """

    order: ClassVar[int]
    """The order of convergence in the step size: of the error for ODEs, the weak order for SDEs."""

    @abstractmethod
    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s, of x's shape (B, *), from the state x at time t.

        Times are scalars or have shape (B,), one per row. The result is float32 at least. Evaluate fields by `at`,
        which returns float32 and passes times in the right dtype, and multiply by `column(s - t, x)`.
        """

    def __call__(self, x: Tensor, times: Tensor, /) -> Iterator[Tensor]:
        """Yield the state at each of `times`, starting with x itself.

        Raises:
            ValueError: `times` is not a grid, x is not floating point, or `step` returns half precision.
        """
        grid = check_times(times)
        check_states(x)
        yield x
        dtype = x.dtype
        remainder: Tensor | None = None  # the rounding error of the state in half precision
        for t, s in pairwise(grid):
            state = self.step(x, t, s)
            if state.dtype != upcast_dtype(state.dtype):
                raise ValueError(
                    f"{type(self).__name__}.step must return float32 at least, got {state.dtype}: "
                    "evaluate the field by `samplers.at`, which returns float32"
                )
            if state.dtype == dtype:
                x = state
                yield x
                continue
            state = state if remainder is None else state + remainder
            x = state.to(dtype)
            remainder, before = state - x, x.clone()
            yield x
            remainder = torch.where(x == before, remainder, 0)  # 0 where x was edited


class StochasticStep(OneStep):
    """The base class of one-step solvers of SDEs, whose times increase from noise to data.

    Gradients are those for fixed noise.
    """

    def __call__(self, x: Tensor, times: Tensor, /) -> Iterator[Tensor]:
        """Yield the state at each of `times`, starting with x itself.

        Raises:
            ValueError: `times` is not an increasing grid, or w is not finite at one of the steps.
        """
        return super().__call__(x, check_increasing(times))


def check_times(times: Tensor) -> Tensor:
    """Return the times on the CPU, where reading them needs no synchronisation, in float32 at least.

    Raises:
        ValueError: `times` is not a grid: a tensor, one-dimensional, floating point, finite, strictly increasing or
            decreasing.
    """
    if not isinstance(times, Tensor):
        raise ValueError(f"times must be a tensor, got {type(times).__name__}: use torch.tensor(times)")
    if times.ndim != 1 or not len(times) or not times.is_floating_point():
        raise ValueError(
            f"times must be floating point and of shape (N,), N >= 1, got {times.dtype} {tuple(times.shape)}"
        )
    times = upcast(times.cpu())
    if is_batched(times):  # values cannot be read
        return times
    steps = times.detach().diff()
    if not (torch.isfinite(times).all() and ((steps > 0).all() or (steps < 0).all())):
        raise ValueError(f"times must be finite and strictly increasing or decreasing, got {_brief(times)}")
    return times


def check_increasing(times: Tensor) -> Tensor:
    """Return the times on the CPU, in float32 at least.

    Raises:
        ValueError: `times` is not an increasing grid.
    """
    times = check_times(times)
    if len(times) > 1 and not is_batched(times) and times[0] > times[1]:
        raise ValueError(f"an SDE is solved forwards, from t = 0 to 1: times must increase, got {_brief(times)}")
    return times


def _brief(times: Tensor) -> str:
    """Return the times as text, without those in the middle of a long grid."""
    values = [f"{value:.6g}" for value in times.tolist()]
    return f"[{', '.join(values if len(values) <= 6 else [*values[:3], '...', *values[-2:]])}]"


def check_step(t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Return the times of a step of an SDE, scalars or (B,), in float32 at least.

    Raises:
        ValueError: the times are not tensors of floating point numbers, or not 0 <= t <= s <= 1. Values are checked
            only on the CPU.
    """
    for time in (t, s):
        if not isinstance(time, Tensor) or not time.is_floating_point():
            raise ValueError(f"times must be floating point tensors, got {time!r}: use torch.tensor({time!r})")
    if t.device.type == s.device.type == "cpu" and not (is_traced(t) or is_traced(s)):
        wrong = ~((t >= 0) & (t <= s) & (s <= 1))
        if wrong.any():
            first, last = (float(time.detach().expand(wrong.shape)[wrong][0]) for time in (t, s))
            raise ValueError(
                f"a step of an SDE goes from t to s with 0 <= t <= s <= 1, from noise to data, got {first:.6g} to "
                f"{last:.6g}: times must increase"
            )
    return upcast(t), upcast(s)


def at(field: Field, x: Tensor, t: Tensor) -> Tensor:
    """Evaluate a field at states x (B, *) and times t, a scalar or (B,). Return the value in float32 at least.

    The field is called with x unchanged and with times (B,) on x's device, in x's dtype or float32, whichever is wider.

    Raises:
        ValueError: t is neither a scalar tensor nor (B,), or x is not a floating point tensor (B, *).
    """
    check_states(x)
    if not isinstance(t, Tensor):
        raise ValueError(f"times must be tensors, got {type(t).__name__}: use torch.tensor(t)")
    if t.ndim and t.shape != x.shape[:1]:
        raise ValueError(f"t must be a scalar or have shape ({len(x)},) as x has {len(x)} rows, got {tuple(t.shape)}")
    return upcast(field(x, _expand_to_rows(t, x)))


def _expand_to_rows(t: Tensor, x: Tensor) -> Tensor:
    """Return times (B,) for states x (B, *), on x's device, without a synchronisation."""
    dtype = upcast_dtype(x.dtype)
    if t.ndim or t.device.type != "cpu" or torch.compiler.is_compiling() or t.requires_grad or is_batched(t):
        return t.to(x.device, dtype).expand(len(x))
    if t.device != x.device:
        times = torch.full((len(x),), float(t), dtype=dtype, device=x.device)  # passed as kernel argument
    else:
        times = t.to(dtype).expand(len(x))
    return with_known_time(times, float(t))
