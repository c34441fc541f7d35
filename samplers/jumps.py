"""Where fields jump: a solver whose error control, order or memory asks for smooth fields stops there.

A field says so by an attribute `jumps`, the times at which it is discontinuous, as guidance in an interval is at both
ends of it. Between two of them it is asked on one side only.
"""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Piece(NamedTuple):
    """A part of the way between two times, on which a field is smooth, and where it may be asked."""

    t: float
    s: float
    low: float
    high: float
    """The least and the greatest time to ask the field at, numbers of the dtype that its times have."""


def jumps_of(field: Any) -> tuple[float, ...]:
    """Return the times at which a field, or what it is a `partial` of, says that it jumps: none without `jumps`."""
    while isinstance(field, partial):
        field = field.func
    return tuple(float(time) for time in getattr(field, "jumps", ()))


def pieces(field: Any, t: float, s: float, dtype: torch.dtype) -> Iterator[Piece]:
    """Return the parts of the way from t to s, which may lie before t, that the jumps of a field leave."""
    inside = {time for time in jumps_of(field) if min(t, s) < time < max(t, s)}
    places = [t, *sorted(inside, reverse=s < t), s]
    for begin, end in pairwise(places):
        low, high = _asked(min(begin, end), max(begin, end), dtype, inside)
        yield Piece(begin, end, low, high)


def through(times: Tensor, field: Any) -> Tensor:
    """Return a rising grid (N,) of which, for each jump inside of it, the nearest inner time is moved onto the jump.

    A jump finds no time where there are more jumps than inner times.
    """
    times = times.clone()
    free = set(range(1, len(times) - 1))
    for jump in sorted(jumps_of(field)):
        between = [n for n in free if times[n - 1] < jump < times[n + 1]]
        if between and jump not in times.tolist():
            nearest = min(between, key=lambda n: abs(float(times[n]) - jump))
            times[nearest] = jump
            free.discard(nearest)
    return times


def jump_at(jumps: tuple[float, ...], t: Tensor) -> Tensor | None:
    """Return the jump, float64, that is the time t of a grid but for rounding to float32; None if none is."""
    time = t.detach().float()
    here = [each for each in torch.tensor(jumps, dtype=torch.float64, device="cpu") if each.float() == time]
    return here[0] if here else None


def just_after(t: Tensor, s: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the number of a dtype that is next to time t, on the way to s."""
    return torch.nextafter(t.to(dtype), s.to(dtype))


def _asked(low: float, high: float, dtype: torch.dtype, jumps: set[float]) -> tuple[float, float]:
    """Return the least and the greatest number of a dtype in [low, high], past the rounded ends that are jumps."""
    ends = torch.tensor([low, high], dtype=torch.float64, device="cpu")
    rounded = ends.to(dtype)
    beyond = torch.stack([rounded[0] < ends[0], rounded[1] > ends[1]])
    at_jump = torch.tensor([low in jumps, high in jumps], device="cpu")
    inner: list[float] = torch.where(beyond | at_jump, torch.nextafter(rounded, rounded.flip(0)), rounded).tolist()
    return inner[0], inner[1]
