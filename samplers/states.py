"""Dtypes and shapes of states: float32 at least, shape (B, *), with a time for all rows or for each row."""

import math

import torch
from torch import Tensor


def upcast_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return float32, or the dtype itself if it is wider. Solvers carry states in this dtype."""
    return torch.promote_types(dtype, torch.float32)


def upcast(x: Tensor) -> Tensor:
    """Return x in float32, or in its own dtype if it is wider."""
    return x.to(upcast_dtype(x.dtype))


def column(values: Tensor, x: Tensor) -> Tensor:
    """Return values of times, () or (B,), reshaped so that they multiply states x (B, *) row by row.

    Without it, broadcasting would apply values (B,) to the columns of states (B, B).

    Raises:
        ValueError: values are neither a scalar tensor nor (B,).
    """
    if not isinstance(values, Tensor):
        raise ValueError(f"times must be tensors, got {type(values).__name__}: use torch.tensor(t)")
    if not values.ndim:
        return values
    if values.shape != x.shape[:1]:
        raise ValueError(
            f"times must be scalars or have shape ({len(x)},) as x has {len(x)} rows, got {tuple(values.shape)}"
        )
    return values.to(x.device, upcast_dtype(x.dtype)).reshape(len(x), *[1] * (x.ndim - 1))


def broadcast_rows(values: Tensor, x: Tensor) -> Tensor:
    """Return values, () or (B,), of any dtype, reshaped so that they broadcast over the rows of x (B, *)."""
    return values.reshape(-1, *[1] * (x.ndim - 1)) if values.ndim else values


def flatten_rows(x: Tensor) -> Tensor:
    """Return states (B, *) as (B, D), where D is the number of values per row. Works for shape (B,) and for B = 0."""
    return x.reshape(len(x), math.prod(x.shape[1:]))


def check_states(x: Tensor) -> None:
    """Raise ValueError unless states are a floating point tensor (B, *). Integers would be rounded at every step."""
    if not isinstance(x, Tensor):
        raise ValueError(f"states must be a tensor, got {type(x).__name__}: use torch.as_tensor(x)")
    if not x.ndim:
        raise ValueError("states must have shape (B, *), with a row for each sample, got a scalar")
    if not x.is_floating_point():
        raise ValueError(f"states must be floating point, got {x.dtype}: give x.float()")
