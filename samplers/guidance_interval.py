"""Guidance in an interval of times, for `ClassifierFree` and `Autoguidance`: which rows of a batch are guided.

Rows are found without a GPU synchronisation if the interval contains all of [0, 1], or if the times have the attribute
`known_time`. In traced functions, values of times cannot be read, and every row is computed with guidance.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .known_time import known_time
from .states import broadcast_rows
from .transforms import is_traced


class GuidedRows(NamedTuple):
    """The rows to compute with guidance: none, some or all."""

    rows: Tensor | None
    """Their indices, (N,), or None for all rows."""
    mask: Tensor | None = None
    """A mask of those whose guided value is used, (N,) bool, or None for all of them."""

    def select(self, values: Tensor) -> Tensor:
        """Return the rows of values (B, *) to compute with guidance, (N, *)."""
        return values if self.rows is None else values[self.rows]

    def merge(self, values: Tensor, guided: Tensor) -> Tensor:
        """Return values (B, *) in which guided rows are replaced by `guided`, (N, *)."""
        if self.mask is not None:
            return torch.where(broadcast_rows(self.mask, values), guided, values)
        return guided if self.rows is None else values.index_copy(0, self.rows, guided)


def guided_rows(t: Tensor, scale: float | Tensor, interval: tuple[float, float]) -> GuidedRows:
    """Return the rows of times t (B,) in `interval`, ends included. With scale 1, which has no effect, return none."""
    low, high = interval
    if not isinstance(scale, Tensor) and scale == 1:
        return GuidedRows(torch.empty(0, dtype=torch.long, device=t.device))
    if low <= 0 and high >= 1:
        return GuidedRows(None)
    if is_traced(t):
        return GuidedRows(None, (low <= t) & (t <= high))
    if (time := known_time(t)) is not None:
        rounded = torch.tensor(time, dtype=t.dtype, device="cpu")  # in the dtype of the times on the device
        return GuidedRows(None if low <= rounded <= high else torch.empty(0, dtype=torch.long, device=t.device))
    return GuidedRows(torch.nonzero((low <= t) & (t <= high))[:, 0])


def extrapolate(weak: Tensor, strong: Tensor, scale: float | Tensor) -> Tensor:
    """Return weak + scale (strong - weak) for fields (B, *) and a scale, () or (B,).

    It is computed in float32 at least and returned in the dtype of `strong`.
    """
    dtype = torch.promote_types(torch.promote_types(weak.dtype, strong.dtype), torch.float32)
    weight = broadcast_rows(scale.to(strong.device, dtype), strong) if isinstance(scale, Tensor) else scale
    return torch.lerp(weak.to(dtype), strong.to(dtype), weight).to(strong.dtype)


def select_scale(scale: float | Tensor, guided: GuidedRows, x: Tensor) -> float | Tensor:
    """Return the scale of the guided rows of x (B, *).

    Raises:
        ValueError: the number of scales differs from the number of rows.
    """
    if not isinstance(scale, Tensor) or not scale.ndim:
        return scale
    if len(scale) != len(x):
        raise ValueError(f"there are {len(scale)} scales, and x has {len(x)} rows")
    return guided.select(scale)


def check_arguments(scale: Any, interval: tuple[float, float]) -> None:
    """Raise ValueError unless `scale` is a finite number, or a tensor () or (B,), and `interval` is (low, high)."""
    if isinstance(scale, Tensor):
        if scale.ndim > 1:
            raise ValueError(f"scale must be a number or of shape (B,), got a tensor {tuple(scale.shape)}")
        if scale.device.type == "cpu" and not is_traced(scale) and not scale.isfinite().all():
            raise ValueError(f"scale must be finite, got {scale.tolist()}")
    elif not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")
    if not interval[0] <= interval[1]:
        raise ValueError(f"interval must be (low, high) with low <= high, got {interval}")


def interval_jumps(scale: float | Tensor, interval: tuple[float, float]) -> tuple[float, ...]:
    """Return the ends of the interval inside (0, 1), at which the guided field is discontinuous."""
    if not isinstance(scale, Tensor) and scale == 1:
        return ()
    return tuple(sorted({time for time in interval if 0 < time < 1}))
