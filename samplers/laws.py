"""What every w(t) must satisfy, and at what order a solver converges: numbers, on data known in closed form."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from .protocols import Diffusion, Field, Solver

Number = TypeVar("Number", float, Tensor)
MESH, CHUNK = 2**20, 2**16
"""Times at which w is looked at, and how many of them at once."""
MOST_STEPS = 4_000_000


def check(w: Diffusion) -> None:
    """Check that `w` is a diffusion coefficient; its author calls this once, in a test.

    The laws: w acts on each time alone and keeps its shape and precision; on a mesh of [0.01, 0.99] with a million
    times it is finite and not negative; and it keeps the marginals: by steps of Euler and Maruyama's method that are
    short for the largest w seen on [0.1, 0.9], the variance of normal data on the straight path is met to 1 %. A w so
    large there that more than four million steps were needed is refused, such as one with a narrow peak.

    Raises:
        ValueError: a law does not hold; the message says which, and where.
    """
    t = torch.linspace(0.01, 0.99, 197, dtype=torch.float64)
    for times in (t, t.float()):
        values = w(times)
        if not isinstance(values, Tensor) or values.shape != times.shape or values.dtype != times.dtype:
            raise ValueError(f"{w}: w must keep the shape and precision of t: give a tensor like t, as torch.full_like")
    values = w(t)
    mesh = torch.cat([t, torch.linspace(0.01, 0.99, MESH, dtype=torch.float64)])
    fine = torch.cat([values, *(w(times) for times in torch.split(mesh[len(t) :], CHUNK))])
    _require(w, fine.isfinite() & (fine >= 0), mesh, "w is finite and at least 0")
    _require(w, torch.isclose(values, torch.stack([w(time) for time in t])), t, "w acts on each time alone")
    walked = torch.where((mesh >= 0.1) & (mesh <= 0.9), fine, 0)
    steps = max(1000, math.ceil(100 * float(walked.max())))
    if steps > MOST_STEPS:
        raise ValueError(
            f"{w}: w is {float(walked.max()):.3g} at t = {float(mesh[walked.argmax()]):.4g} and asks for "
            f"{steps:.1e} steps: no solver's are so short; flatten its peak"
        )
    error = _excess_variance(w, steps)
    if not abs(error) <= 0.01:
        raise ValueError(
            f"{w}: 'w keeps the marginals' does not hold: a variance is off by {error:.1%} after {steps} steps"
        )


def measured_order(solver_of_velocity: Callable[[Field], Solver], *, grids: Sequence[int] = (16, 32, 64, 128)) -> float:
    """Return the power of the step at which a solver of ODEs converges, by regression over uniform grids on [0.1, 0.9].

    The ODE is that of a mixture of two Gaussians on the line along the straight path, which is not linear in the state.
    On a line the flow keeps quantiles, so that its end is known.

    Args:
        solver_of_velocity: a solver's class, or any function from a velocity to a solver.
        grids: numbers of steps, two or more, that rise.

    Raises:
        ValueError: not two or more grids that rise, or the solver comes to no finite state.
    """
    if len(grids) < 2 or not all(0 < few < more for few, more in pairwise(grids)):
        raise ValueError(f"give two or more grids, numbers of steps that rise, got {grids}")
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    exact = _quantile(_probability(x, 0.1), 0.9)
    errors = []
    for steps in grids:
        times = torch.linspace(0.1, 0.9, steps + 1, dtype=torch.float64)
        state = x
        for state in solver_of_velocity(_velocity)(x, times):  # noqa: B007 (the last one counts)
            pass
        errors.append(float((state - exact).abs().max()))
    if not all(math.isfinite(error) for error in errors):
        raise ValueError(f"the solver comes to no finite state: errors {errors}")
    log_steps, log_errors = (torch.tensor(values, dtype=torch.float64).log() for values in (list(grids), errors))
    gaps = log_steps - log_steps.mean()
    return float(-(gaps * log_errors).sum() / gaps.square().sum())


def _excess_variance(w: Diffusion, steps: int) -> float:
    """Return the relative error of the variance of data of variance 1/4 on the straight path, at t = 0.9 from 0.1."""
    h, variance = 0.8 / steps, _straight_variance(0.1)
    for numbers in torch.split(torch.arange(steps, dtype=torch.float64), CHUNK):
        t = 0.1 + h * numbers
        exact, values = _straight_variance(t), w(t)
        slopes = (t / 4 - (1 - t)) / exact
        factors, noises = (1 + h * (slopes - values / (2 * exact))) ** 2, h * values
        for factor, noise in zip(factors.tolist(), noises.tolist(), strict=True):
            variance = factor * variance + noise
    return variance / _straight_variance(0.9) - 1


def _straight_variance(t: Number) -> Number:
    """Return the variance of x_t on the straight path, for data of variance 1/4."""
    return t**2 / 4 + (1 - t) ** 2


MEANS = torch.tensor([-1.0, 0.8], dtype=torch.float64)
STDS = torch.tensor([0.5, 0.7], dtype=torch.float64)


def _velocity(x: Tensor, t: Tensor) -> Tensor:
    """Return the velocity, (B, 1), of the two Gaussians along the straight path."""
    t = t[:, None]
    variances = (t * STDS) ** 2 + (1 - t) ** 2
    gaps = x - t * MEANS
    shares = (-gaps.square() / (2 * variances) - variances.log() / 2).softmax(1)
    velocities = MEANS + (t * STDS**2 - (1 - t)) / variances * gaps
    return torch.sum(shares * velocities, 1, keepdim=True)


def _probability(x: Tensor, t: float) -> Tensor:
    """Return the probability of a state below x, (B, 1), at time t."""
    stds = ((t * STDS) ** 2 + (1 - t) ** 2).sqrt()
    return torch.mean(torch.special.ndtr((x - t * MEANS) / stds), 1, keepdim=True)


def _quantile(probability: Tensor, t: float) -> Tensor:
    """Return the state of that probability at time t, by bisection."""
    low, high = torch.full_like(probability, -10.0), torch.full_like(probability, 10.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = _probability(middle, t) < probability
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def _require(w: Diffusion, holds: Tensor, t: Tensor, law: str) -> None:
    if not holds.all():
        raise ValueError(f"{w}: '{law}' does not hold at t = {t[~holds][0]:.4g}")
