"""Which rows are guided: those whose times lie in an interval, found without waiting for a device where that can be.

A device is not asked about times that its host gave it (`known`), nor where all times are inside of the interval, as
of [0, 1] they are; where functions are traced, no value can be asked for and every row is computed both ways.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .times import is_traced, known


class Guided(NamedTuple):
    """The rows to guide: none, some or all."""

    rows: Tensor | None
    """Their indices, (N,); None for every row."""
    inside: Tensor | None = None
    """Which of them are guided indeed, (N,) bool; None for all."""

    def of(self, values: Tensor) -> Tensor:
        """Return the rows to guide of values (B, *)."""
        return values if self.rows is None else values[self.rows]

    def put(self, values: Tensor, guided: Tensor) -> Tensor:
        """Return the values (B, *) with the guided rows (N, *) in their places."""
        if self.inside is not None:
            return torch.where(as_column(self.inside, values), guided, values)
        return guided if self.rows is None else values.index_copy(0, self.rows, guided)


def guided(t: Tensor, scale: float | Tensor, interval: tuple[float, float]) -> Guided:
    """Return the rows of times t (B,) in `interval`, ends included; none for a scale of 1, which changes nothing."""
    low, high = interval
    if not isinstance(scale, Tensor) and scale == 1:
        return Guided(torch.empty(0, dtype=torch.long, device=t.device))
    if low <= 0 and high >= 1:
        return Guided(None)
    if is_traced(t):
        return Guided(None, (low <= t) & (t <= high))
    if (time := known(t)) is not None:
        rounded = torch.tensor(time, dtype=t.dtype, device="cpu")  # as times on the device are
        return Guided(None if low <= rounded <= high else torch.empty(0, dtype=torch.long, device=t.device))
    return Guided(torch.nonzero((low <= t) & (t <= high))[:, 0])


def mixed(weak: Tensor, strong: Tensor, scale: float | Tensor) -> Tensor:
    """Return weak + scale (strong - weak) for fields (B, *), computed in float32 at least, in the dtype of `strong`.

    A scale of shape (B,) is each row's own.
    """
    dtype = torch.promote_types(torch.promote_types(weak.dtype, strong.dtype), torch.float32)
    weight = as_column(scale.to(strong.device, dtype), strong) if isinstance(scale, Tensor) else scale
    return torch.lerp(weak.to(dtype), strong.to(dtype), weight).to(strong.dtype)


def scales(scale: float | Tensor, guided: Guided, x: Tensor) -> float | Tensor:
    """Return the scale of the rows to guide: the same for all, or those of the rows of x (B, *).

    Raises:
        ValueError: x has not as many rows as there are scales.
    """
    if not isinstance(scale, Tensor) or not scale.ndim:
        return scale
    if len(scale) != len(x):
        raise ValueError(f"there are {len(scale)} scales, and x has {len(x)} rows")
    return guided.of(scale)


def as_column(values: Tensor, x: Tensor) -> Tensor:
    """Return values, () or (B,), so that they multiply x (B, *) row by row."""
    return values.reshape(-1, *[1] * (x.ndim - 1)) if values.ndim else values


def checked(scale: Any, interval: tuple[float, float]) -> None:
    """Raise ValueError unless the scale is a finite number, or a tensor () or (B,), and the interval is one."""
    if isinstance(scale, Tensor):
        if scale.ndim > 1:
            raise ValueError(f"scale must be a number or of shape (B,), got a tensor {tuple(scale.shape)}")
        if scale.device.type == "cpu" and not is_traced(scale) and not scale.isfinite().all():
            raise ValueError(f"scale must be finite, got {scale.tolist()}")
    elif not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")
    if not interval[0] <= interval[1]:
        raise ValueError(f"interval must be (low, high) with low <= high, got {interval}")


def jumps(scale: float | Tensor, interval: tuple[float, float]) -> tuple[float, ...]:
    """Return the times inside (0, 1) at which guidance sets in or ends."""
    if not isinstance(scale, Tensor) and scale == 1:
        return ()
    return tuple(sorted({time for time in interval if 0 < time < 1}))
