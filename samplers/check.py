"""A numerical check of custom diffusion coefficients w(t)."""

import math
from typing import TypeVar

import torch
from torch import Tensor

from .protocols import Diffusion

FloatOrTensor = TypeVar("FloatOrTensor", float, Tensor)
MESH, CHUNK = 2**20, 2**16
"""The number of times at which w is evaluated, and the number of them that are evaluated at once."""
MAX_STEPS = 4_000_000


def check(w: Diffusion) -> None:
    """Check that `w` is a valid diffusion coefficient. Call it once, in a test of a custom w(t).

    The laws:

    - w is a function of each time separately and keeps its shape and dtype;
    - w is finite and not negative at a million times in [0.01, 0.99];
    - w keeps the marginals: for normal data on the linear path, the Euler-Maruyama method reproduces the variance on
      [0.1, 0.9] to 1 %, with steps that are short relative to the largest w.

    A w that would need more than four million steps, such as one with a narrow peak, is refused.

    Raises:
        ValueError: a law does not hold. The message names the law and the time.
    """
    t = torch.linspace(0.01, 0.99, 197, dtype=torch.float64)
    for times in (t, t.float()):
        values = w(times)
        if not isinstance(values, Tensor) or values.shape != times.shape or values.dtype != times.dtype:
            raise ValueError(f"{w}: w must return a tensor of the shape and dtype of t, e.g. by torch.full_like(t, c)")
    values = w(t)
    mesh = torch.cat([t, torch.linspace(0.01, 0.99, MESH, dtype=torch.float64)])
    fine = torch.cat([values, *(w(times) for times in torch.split(mesh[len(t) :], CHUNK))])
    _require(w, fine.isfinite() & (fine >= 0), mesh, "w is finite and at least 0")
    _require(w, torch.isclose(values, torch.stack([w(time) for time in t])), t, "w acts on each time separately")
    inner = torch.where((mesh >= 0.1) & (mesh <= 0.9), fine, 0)
    steps = max(1000, math.ceil(100 * float(inner.max())))
    if steps > MAX_STEPS:
        raise ValueError(
            f"{w}: w is {float(inner.max()):.3g} at t = {float(mesh[inner.argmax()]):.4g} and would need {steps:.1e} "
            "steps, which is impractical for any solver: flatten its peak"
        )
    error = _variance_error(w, steps)
    if not abs(error) <= 0.01:
        raise ValueError(
            f"{w}: 'w keeps the marginals' does not hold: a variance is off by {error:.1%} after {steps} steps"
        )


def _variance_error(w: Diffusion, steps: int) -> float:
    """Return the relative error of the variance at t = 0.9 of the Euler-Maruyama method on [0.1, 0.9].

    The data are normal with variance 1/4, and the path is linear.
    """
    h, variance = 0.8 / steps, _marginal_variance(0.1)
    for numbers in torch.split(torch.arange(steps, dtype=torch.float64), CHUNK):
        t = 0.1 + h * numbers
        exact, values = _marginal_variance(t), w(t)
        slopes = (t / 4 - (1 - t)) / exact
        factors, noises = (1 + h * (slopes - values / (2 * exact))) ** 2, h * values
        for factor, noise in zip(factors.tolist(), noises.tolist(), strict=True):
            variance = factor * variance + noise
    return variance / _marginal_variance(0.9) - 1


def _marginal_variance(t: FloatOrTensor) -> FloatOrTensor:
    """Return the variance of x_t on the linear path, for data of variance 1/4."""
    return t**2 / 4 + (1 - t) ** 2


def _require(w: Diffusion, holds: Tensor, t: Tensor, law: str) -> None:
    if not holds.all():
        raise ValueError(f"{w}: '{law}' does not hold at t = {t[~holds][0]:.4g}")
