"""Dtypes, shapes and ends of fields that are known in closed form."""

from collections.abc import Callable

import torch
from torch import Tensor


def check_finite(path: object, t: Tensor, coefficients: Callable[[Tensor], Tensor], names: str) -> None:
    """Raise ValueError if coefficients are infinite at t. For times on a GPU, t.known_time is checked, if it is set.

    `names` says in the message what is infinite.
    """
    if torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(t):
        return
    if t.device.type != "cpu":
        known_time = getattr(t, "known_time", None)
        if known_time is None:
            return
        t = torch.tensor(known_time, dtype=t.dtype, device="cpu")
    wrong = ~coefficients(t).isfinite()
    if not wrong.any():
        return
    time = float(t[wrong][0])
    raise ValueError(
        f"{path}: {names} is infinite at t = {time:.6g}, and so is the velocity: "
        f"{'start later' if time < 0.5 else 'end before it, at t = 0.99999 or the like'}"
    )


def upcast(values: Tensor) -> Tensor:
    """Return values in float32, or in their own dtype if it is wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def column(values: Tensor, x: Tensor) -> Tensor:
    """Return values (one or B), reshaped to (1 or B, 1, 1), in x's dtype.

    Raises:
        ValueError: values are neither a scalar nor (B,).
    """
    if values.ndim and values.shape != x.shape[:1]:
        raise ValueError(
            f"t must be a scalar or have shape ({len(x)},) as x has {len(x)} rows, got {tuple(values.shape)}"
        )
    return values.to(x).reshape(-1, 1, 1)
