"""A numerical check of custom interpolants."""

import torch
from torch import Tensor

from .interpolant import Interpolant


def check(path: Interpolant) -> None:
    """Check that `path` is a valid interpolant. Call it once, in a test of a custom path.

    The laws:

    - alpha and sigma are functions of each time separately and keep its shape and dtype;
    - alpha goes from 0 to 1 and sigma from 1 to 0, up to 1e-2 at each end;
    - inside (0, 1), alpha and sigma are positive, and alpha_dot and sigma_dot are their derivatives;
    - alpha / sigma increases, so that velocity and noise determine one another.

    Raises:
        ValueError: a law does not hold. The message names the law and the time.
    """
    inside = torch.linspace(0.01, 0.99, 197, dtype=torch.float64)
    functions = {name: getattr(path, name) for name in ("alpha", "sigma", "alpha_dot", "sigma_dot")}
    for name, function in functions.items():
        _check_shapes(path, name, function(inside), inside)
        _check_shapes(path, name, function(inside.float()), inside.float())
        _require(path, torch.isfinite(function(inside)), inside, f"{name} is finite")
        alone = torch.stack([function(t) for t in inside])
        _require(path, torch.isclose(function(inside), alone), inside, f"{name} acts on each time separately")
    for name, end, value in (("alpha", 0, 0), ("alpha", 1, 1), ("sigma", 0, 1), ("sigma", 1, 0)):
        t = torch.tensor([float(end)], dtype=torch.float64)
        _require(path, (functions[name](t) - value).abs() <= 1e-2, t, f"{name}({end}) = {value}")
    alpha, sigma, alpha_dot, sigma_dot = (function(inside) for function in functions.values())
    _require(path, (alpha > 0) & (sigma > 0), inside, "alpha and sigma are positive inside (0, 1)")
    for name, derivative in (("alpha", alpha_dot), ("sigma", sigma_dot)):
        h = 1e-4
        slope = (functions[name](inside + h) - functions[name](inside - h)) / (2 * h)
        _require(path, torch.isclose(slope, derivative, rtol=1e-3, atol=1e-4), inside, f"{name}_dot is its derivative")
    _require(path, alpha_dot * sigma - alpha * sigma_dot > 0, inside, "alpha / sigma grows")


def _check_shapes(path: Interpolant, name: str, values: Tensor, t: Tensor) -> None:
    if values.shape != t.shape or values.dtype != t.dtype:
        raise ValueError(
            f"{path}: {name} must keep the shape and dtype of t, "
            f"got {tuple(values.shape)} {values.dtype} for {tuple(t.shape)} {t.dtype}"
        )


def _require(path: Interpolant, holds: Tensor, t: Tensor, law: str) -> None:
    if not holds.all():
        raise ValueError(f"{path}: '{law}' does not hold at t = {t[~holds][0]:.4g}")
