"""What states and times are to solvers: float32 at least, of any shape (B, *), a time for all rows or for each."""

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


def root(w: Tensor) -> Tensor:
    """Return the square root of w(t) >= 0, whose gradient is 0 where w = 0, lest that of a learnt w be NaN."""
    none = w == 0
    return torch.where(none, 0.0, torch.where(none, 1.0, w).sqrt())


def flat(x: Tensor) -> Tensor:
    """Return states (B, *) as (B, D), D the numbers of a row: also of shape (B,), and of no rows."""
    return x.reshape(len(x), math.prod(x.shape[1:]))


def check_outside_transforms(x: Tensor) -> None:
    """Raise ValueError inside of torch.func's transforms, where step sizes cannot be chosen by looking at errors."""
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        raise ValueError(
            "solvers that choose their steps do not run inside of torch.func's transforms: call them outside, or take "
            "a solver on a grid, as Heun"
        )


def check_states(x: Tensor) -> None:
    """Raise ValueError unless states are floating point: others would be rounded at every step."""
    if not x.is_floating_point():
        raise ValueError(f"states must be floating point, got {x.dtype}: give x.float()")
