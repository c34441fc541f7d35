"""Linear combinations of states, with coefficients that depend on time."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def linear_combination(
    t: Tensor,
    coefficients: Sequence[Tensor],
    states: Sequence[Tensor],
    error: Callable[[Tensor], ValueError],
) -> Tensor:
    """Return the sum of coefficients times states, (B, *), in the dtype of the states, float32 at least.

    Args:
        t: the times, () or (B,). They are checked only on the CPU, to avoid a synchronisation with the GPU.
        coefficients: one for each state, of t's shape.
        states: two or more, (B, *).
        error: a function that returns the error for the mask of times, of t's shape, with infinite coefficients.

    Raises:
        ValueError: shapes do not match, or coefficients are not finite. Shapes are checked because broadcasting would
            silently apply times (B,) to the columns of images of width B.
    """
    x, *others = states
    for y in others:
        if x.shape != y.shape:
            raise ValueError(f"states must have one shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    if t.ndim and t.shape != x.shape[:1]:
        raise ValueError(f"t must be a scalar or have shape (B,) with B = {len(x)} as the states, got {tuple(t.shape)}")
    if _has_readable_values(t):
        wrong = ~sum(coefficients[1:], coefficients[0]).isfinite()
        if wrong.any():
            raise error(wrong)
    dtype = torch.float32
    for y in states:
        dtype = torch.promote_types(dtype, y.dtype)
    shape = (len(x),) + (1,) * (x.ndim - 1) if t.ndim else ()
    terms = [a.to(dtype).reshape(shape) * y.to(dtype) for a, y in zip(coefficients, states, strict=True)]
    return sum(terms[1:], terms[0])


def _has_readable_values(t: Tensor) -> bool:
    """Return whether the values of t can be read without a synchronisation: on the CPU, not traced or transformed."""
    traced = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(t)
    return t.device.type == "cpu" and not traced
