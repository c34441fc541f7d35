"""Discontinuities of fields in time, at which adaptive and multistep solvers must stop.

A field lists the times of its discontinuities in the attribute `jumps`. For example, guidance in an interval is
discontinuous at both ends of the interval. Between two jumps the field is smooth, and solvers evaluate it strictly
between them.
"""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .states import upcast_dtype


class SmoothInterval(NamedTuple):
    """An interval of integration, from t to s, inside which a field is smooth."""

    t: float
    s: float
    low: float
    """The least time at which to evaluate the field, exactly representable in the dtype of its times."""
    high: float
    """The greatest time at which to evaluate the field, exactly representable in the dtype of its times."""


def jumps_of(field: Any) -> tuple[float, ...]:
    """Return the attribute `jumps` of a field, or of the function in a `functools.partial`; () if there is none."""
    while isinstance(field, partial):
        field = field.func
    return tuple(float(time) for time in getattr(field, "jumps", ()))


def smooth_intervals(field: Any, t: float, s: float, dtype: torch.dtype) -> Iterator[SmoothInterval]:
    """Yield the intervals into which the jumps of a field divide the way from t to s, for t < s or t > s."""
    inside = {time for time in jumps_of(field) if min(t, s) < time < max(t, s)}
    ends = [t, *sorted(inside, reverse=s < t), s]
    for start, end in pairwise(ends):
        low, high = _evaluation_bounds(min(start, end), max(start, end), dtype, inside)
        yield SmoothInterval(start, end, low, high)


def snap_to_jumps(times: Tensor, *fields: Any) -> Tensor:
    """Return increasing times (N,) in which, for each jump of the fields, the nearest inner time is moved onto it.

    A diffusion coefficient may have jumps too, such as `Window`.

    If there are more jumps than inner times, some jumps remain between times.
    """
    times = times.clone()
    free = set(range(1, len(times) - 1))
    for jump in sorted({jump for field in fields for jump in jumps_of(field)}):
        candidates = [n for n in free if times[n - 1] < jump < times[n + 1]]
        if candidates and jump not in times.tolist():
            nearest = min(candidates, key=lambda n: abs(float(times[n]) - jump))
            times[nearest] = jump
            free.discard(nearest)
    return times


def rounding_of_times(dtype: torch.dtype) -> float:
    """Return the difference up to which two times in [0, 1] of a dtype, float32 at least, are taken as equal.

    A time such as 0.3 has a rounding error, and so have the times of `torch.linspace`.
    """
    return 4 * torch.finfo(upcast_dtype(dtype)).eps


def jumps_inside(field: Any, times: Tensor) -> tuple[float, ...]:
    """Return the jumps of a field that differ from all of the `times` by more than the rounding error of float32."""
    rounding = rounding_of_times(torch.float32)
    return tuple(jump for jump in jumps_of(field) if not ((times - jump).abs() <= rounding).any())


def jump_at(jumps: tuple[float, ...], t: Tensor) -> Tensor | None:
    """Return the jump, in float64, that equals time t when both are rounded to float32, or None."""
    time = t.detach().float()
    equal = [each for each in torch.tensor(jumps, dtype=torch.float64, device="cpu") if each.float() == time]
    return equal[0] if equal else None


def next_after(t: Tensor, s: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the floating point number of a dtype that follows t in the direction of s."""
    return torch.nextafter(t.to(dtype), s.to(dtype))


def _evaluation_bounds(low: float, high: float, dtype: torch.dtype, jumps: set[float]) -> tuple[float, float]:
    """Return the least and greatest number of a dtype in [low, high]. Ends that are jumps are excluded."""
    ends = torch.tensor([low, high], dtype=torch.float64, device="cpu")
    rounded = ends.to(dtype)
    outside = torch.stack([rounded[0] < ends[0], rounded[1] > ends[1]])
    at_jump = torch.tensor([low in jumps, high in jumps], device="cpu")
    bounds: list[float] = torch.where(outside | at_jump, torch.nextafter(rounded, rounded.flip(0)), rounded).tolist()
    return bounds[0], bounds[1]
