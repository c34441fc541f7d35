"""What can be known of times: without waiting for a device, and inside of functions that are traced or transformed."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def know(t: Tensor, time: float) -> Tensor:
    """Return the times t, (B,), with the attribute `known_time`: the host knows that each of them is `time`."""
    t.known_time = time  # type: ignore[attr-defined]
    return t


def known(t: Tensor) -> float | None:
    """Return the time that all of t, (B,), are known to be, without waiting for a device; None if none is."""
    time: float | None = getattr(t, "known_time", None)
    return time


def is_traced(t: Tensor) -> bool:
    """Return whether times are of a function that is compiled, or of one of torch.func's transforms."""
    return torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(t)


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
