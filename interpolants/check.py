"""A numerical check of custom paths."""

from collections.abc import Callable

import torch
from torch import Tensor

from .interpolant import Interpolant
from .two_sided import TwoSided

TimeFunction = Callable[[Tensor], Tensor]


def check(path: Interpolant | TwoSided) -> None:
    """Check that `path` is a valid path, from noise or two-sided. Call it once, in a test of a custom path.

    The laws of every path:

    - the coefficients are functions of each time separately and keep its shape and dtype;
    - alpha_dot, sigma_dot, beta_dot and gamma_dot are their derivatives inside (0, 1), and all are finite there;

    of a path from noise:

    - alpha goes from 0 to 1 and sigma from 1 to 0, up to 1e-2 at each end;
    - inside (0, 1), alpha and sigma are positive;
    - alpha / sigma increases, so that velocity and noise determine one another;

    of a two-sided path:

    - alpha goes from 0 to 1, beta from 1 to 0, and gamma is 0 at both ends, up to 1e-2;
    - gamma is positive inside (0, 1), or 0 at all times;
    - alpha and beta are not both 0 at a time;
    - gamma_gamma_dot is gamma times gamma_dot inside (0, 1), and finite and continuous at both ends.

    Raises:
        ValueError: a law does not hold. The message names the law and the time.
    """
    if isinstance(path, TwoSided):
        _check_two_sided(path)
    else:
        _check_from_noise(path)


def _check_from_noise(path: Interpolant) -> None:
    t = _inside()
    functions = {name: getattr(path, name) for name in ("alpha", "sigma", "alpha_dot", "sigma_dot")}
    _check_functions(path, functions, t)
    _check_ends(path, functions, {"alpha": (0, 1), "sigma": (1, 0)})
    alpha, sigma, alpha_dot, sigma_dot = (function(t) for function in functions.values())
    _require(path, (alpha > 0) & (sigma > 0), t, "alpha and sigma are positive inside (0, 1)")
    _check_derivatives(path, functions, t)
    _require(path, alpha_dot * sigma - alpha * sigma_dot > 0, t, "alpha / sigma grows")


def _check_two_sided(path: TwoSided) -> None:
    t = _inside()
    names = ("alpha", "beta", "gamma", "alpha_dot", "beta_dot", "gamma_dot", "gamma_gamma_dot")
    functions = {name: getattr(path, name) for name in names}
    _check_functions(path, functions, t)
    _check_ends(path, functions, {"alpha": (0, 1), "beta": (1, 0), "gamma": (0, 0)})
    alpha, beta, gamma = (functions[name](t) for name in ("alpha", "beta", "gamma"))
    if gamma.any():
        times, values = _minima(path.gamma, t)
        positive = values > 1e-10 * gamma.max()
        _require(path, positive, times, "gamma is positive inside (0, 1), or 0 at all times")
    _require(path, (alpha != 0) | (beta != 0), t, "alpha and beta are not both 0")
    _check_derivatives(path, functions, t)
    product = gamma * path.gamma_dot(t)
    equal = torch.isclose(path.gamma_gamma_dot(t), product, rtol=1e-6, atol=1e-9)
    _require(path, equal, t, "gamma_gamma_dot is gamma times gamma_dot")
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    at_end, near = path.gamma_gamma_dot(ends), path.gamma_gamma_dot(torch.lerp(ends, ends.flip(0), 1e-9))
    finite = torch.isclose(at_end, near, rtol=1e-2, atol=1e-2)  # infinite values may be approximated by large ones
    _require(path, finite, ends, "gamma_gamma_dot is finite and continuous at both ends")


def _inside() -> Tensor:
    return torch.linspace(0.01, 0.99, 197, dtype=torch.float64)


def _minima(function: TimeFunction, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return times and values of a function: at times t, and at the minima between them, by nested meshes."""
    times, values = t, function(t)
    for _ in range(8):  # each mesh is 20 times finer, around the minima of the last one
        low = torch.nonzero((values[1:-1] <= values[:-2]) & (values[1:-1] <= values[2:]))[:, 0]
        if not len(low):
            break
        fractions = torch.linspace(0, 1, 41, dtype=t.dtype)
        times = torch.unique(torch.cat([times, *(torch.lerp(times[k], times[k + 2], fractions) for k in low[:100])]))
        values = function(times)
    return times, values


def _check_functions(path: Interpolant | TwoSided, functions: dict[str, TimeFunction], t: Tensor) -> None:
    for name, function in functions.items():
        _check_shapes(path, name, function(t), t)
        _check_shapes(path, name, function(t.float()), t.float())
        _require(path, torch.isfinite(function(t)), t, f"{name} is finite")
        some = t[::4]
        alone = torch.stack([function(time) for time in some])
        _require(path, torch.isclose(function(t)[::4], alone), some, f"{name} acts on each time separately")


def _check_ends(
    path: Interpolant | TwoSided, functions: dict[str, TimeFunction], expected: dict[str, tuple[int, int]]
) -> None:
    for name, values in expected.items():
        for end, value in enumerate(values):
            t = torch.tensor([float(end)], dtype=torch.float64)
            _require(path, (functions[name](t) - value).abs() <= 1e-2, t, f"{name}({end}) = {value}")


def _check_derivatives(path: Interpolant | TwoSided, functions: dict[str, TimeFunction], t: Tensor) -> None:
    """Check the functions named `f_dot` against finite differences of those named `f`."""
    h = 1e-4
    for name, function in functions.items():
        if f"{name}_dot" in functions:
            slope = (function(t + h) - function(t - h)) / (2 * h)
            holds = torch.isclose(slope, functions[f"{name}_dot"](t), rtol=1e-3, atol=1e-4)
            _require(path, holds, t, f"{name}_dot is its derivative")


def _check_shapes(path: Interpolant | TwoSided, name: str, values: Tensor, t: Tensor) -> None:
    if values.shape != t.shape or values.dtype != t.dtype:
        raise ValueError(
            f"{path}: {name} must keep the shape and dtype of t, "
            f"got {tuple(values.shape)} {values.dtype} for {tuple(t.shape)} {t.dtype}"
        )


def _require(path: Interpolant | TwoSided, holds: Tensor, t: Tensor, law: str) -> None:
    if not holds.all():
        raise ValueError(f"{path}: '{law}' does not hold at t = {t[~holds][0]:.4g}")
