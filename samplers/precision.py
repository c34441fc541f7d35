"""What states and times are to solvers: float32 at least, of any shape (B, *), a time for all rows or for each."""

import math

import torch
from torch import Tensor
from torch.autograd import forward_ad


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


def is_batched(values: Tensor) -> bool:
    """Return whether values are of some `torch.func.vmap`, inside of which none can be looked at."""
    while torch._C._functorch.is_functorch_wrapped_tensor(values):
        if torch._C._functorch.is_batchedtensor(values):
            return True
        values = torch._C._functorch.get_unwrapped(values)
    return False


def has_derivative(values: Tensor) -> bool:
    """Return whether values are differentiated by, in reverse mode or forward mode."""
    if torch.is_grad_enabled() and values.requires_grad:
        return True
    while torch._C._functorch.is_batchedtensor(values) or _tangent(values) is None:
        if not torch._C._functorch.is_functorch_wrapped_tensor(values):
            return False
        values = torch._C._functorch.get_unwrapped(values)
    return True


def _tangent(values: Tensor) -> Tensor | None:
    tangent: Tensor | None = forward_ad.unpack_dual(values).tangent  # type: ignore[no-untyped-call]
    return tangent


def check_outside_transforms(x: Tensor) -> None:
    """Raise ValueError inside of torch.func's transforms, where step sizes cannot be chosen by looking at errors."""
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        raise ValueError(
            "solvers that choose their steps do not run inside of torch.func's transforms: call them outside, or take "
            "a solver on a grid, as Heun"
        )
