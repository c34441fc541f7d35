"""Derivatives of functions of time, by forward-mode automatic differentiation."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor


def derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """Return the derivative of a function that acts on each time separately, of t's shape, in any grad mode."""
    t = t.contiguous()  # jvp does not accept expanded views
    if torch.compiler.is_compiling():
        return _jvp(function, t)
    if torch.is_inference_mode_enabled():  # in inference mode, jvp of torch 2.9 returns 0
        with torch.inference_mode(False):
            return derivative(function, t.clone())
    with warnings.catch_warnings():  # the first jvp of torch 2.13 warns about torch.jit.script
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.*")
        return _jvp(function, t)


def _jvp(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    return torch.func.jvp(function, (t,), (torch.ones_like(t),))[1]  # type: ignore[no-any-return]
