"""Numbers and shapes of states and times: float32 at least, and a time for all rows or one for each."""

import math

import torch
from torch import Tensor


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype, or float32 if it is narrower: what states are carried in, and times have."""
    return torch.promote_types(dtype, torch.float32)


def column(values: Tensor, x: Tensor) -> Tensor:
    """Return values of times, () or (B,), so that they multiply states x (B, *) row by row.

    Left to broadcasting, values (B,) would scale the columns of states (B, B).

    Raises:
        ValueError: values of another shape.
    """
    if not values.ndim:
        return values
    if values.shape != x.shape[:1]:
        raise ValueError(
            f"times must be scalars or have shape ({len(x)},) as x has {len(x)} rows, got {tuple(values.shape)}"
        )
    return values.to(x.device, wide(x.dtype)).reshape(len(x), *[1] * (x.ndim - 1))


def flat(x: Tensor) -> Tensor:
    """Return states (B, *) as (B, D), D the numbers of a row: also of shape (B,), and of no rows."""
    return x.reshape(len(x), math.prod(x.shape[1:]))
