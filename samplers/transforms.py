"""Whether a tensor is inside of a compiled function or a torch.func transform, or takes part in differentiation."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_traced(t: Tensor) -> bool:
    """Return whether t is part of a compiled function or of a torch.func transform."""
    return torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(t)


def is_batched(values: Tensor) -> bool:
    """Return whether values are inside a `torch.func.vmap`, where they cannot be read."""
    while torch._C._functorch.is_functorch_wrapped_tensor(values):
        if torch._C._functorch.is_batchedtensor(values):
            return True
        values = torch._C._functorch.get_unwrapped(values)
    return False


def has_derivative(values: Tensor) -> bool:
    """Return whether values take part in differentiation, in reverse or forward mode."""
    if torch.is_grad_enabled() and values.requires_grad:
        return True
    while torch._C._functorch.is_batchedtensor(values) or _tangent(values) is None:
        if not torch._C._functorch.is_functorch_wrapped_tensor(values):
            return False
        values = torch._C._functorch.get_unwrapped(values)
    return True


def check_outside_transforms(x: Tensor) -> None:
    """Raise ValueError if x is inside a torch.func transform, where adaptive solvers cannot read errors."""
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        raise ValueError(
            "adaptive solvers do not run inside of torch.func's transforms: call them outside, or use a solver with "
            "fixed steps, such as Heun"
        )


def _tangent(values: Tensor) -> Tensor | None:
    tangent: Tensor | None = forward_ad.unpack_dual(values).tangent  # type: ignore[no-untyped-call]
    return tangent
