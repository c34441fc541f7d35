"""The measured order of convergence of ODE solvers."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .protocols import Field, Solver

MEANS = torch.tensor([-1.0, 0.8], dtype=torch.float64)
STDS = torch.tensor([0.5, 0.7], dtype=torch.float64)


def measured_order(solver_of_velocity: Callable[[Field], Solver], *, grids: Sequence[int] = (16, 32, 64, 128)) -> float:
    """Return the order of convergence of an ODE solver, by regression over uniform grids on [0.1, 0.9].

    The ODE is that of a mixture of two Gaussians in one dimension along the linear path, which is nonlinear in the
    state. In one dimension the flow preserves quantiles, so that the exact solution is known.

    Args:
        solver_of_velocity: the class of a solver, or any function from a velocity to a solver.
        grids: the numbers of steps, at least two, increasing.

    Raises:
        ValueError: `grids` has fewer than two numbers or does not increase, or the solution is not finite.
    """
    if len(grids) < 2 or not all(0 < few < more for few, more in pairwise(grids)):
        raise ValueError(f"give two or more grids, numbers of steps that increase, got {grids}")
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    exact = _quantile(_cdf(x, 0.1), 0.9)
    errors = []
    for steps in grids:
        times = torch.linspace(0.1, 0.9, steps + 1, dtype=torch.float64)
        state = x
        for state in solver_of_velocity(_velocity)(x, times):  # noqa: B007 (the last state is used)
            pass
        errors.append(float((state - exact).abs().max()))
    if not all(math.isfinite(error) for error in errors):
        raise ValueError(f"the solver has no finite state at t = 0.9: errors {errors}")
    log_steps, log_errors = (torch.tensor(values, dtype=torch.float64).log() for values in (list(grids), errors))
    deviations = log_steps - log_steps.mean()
    return float(-(deviations * log_errors).sum() / deviations.square().sum())


def _velocity(x: Tensor, t: Tensor) -> Tensor:
    """Return the velocity, (B, 1), of the two Gaussians along the linear path."""
    t = t[:, None]
    variances = (t * STDS) ** 2 + (1 - t) ** 2
    residuals = x - t * MEANS
    probabilities = (-residuals.square() / (2 * variances) - variances.log() / 2).softmax(1)
    velocities = MEANS + (t * STDS**2 - (1 - t)) / variances * residuals
    return torch.sum(probabilities * velocities, 1, keepdim=True)


def _cdf(x: Tensor, t: float) -> Tensor:
    """Return the probability of a state below x at time t, (B, 1)."""
    stds = ((t * STDS) ** 2 + (1 - t) ** 2).sqrt()
    return torch.mean(torch.special.ndtr((x - t * MEANS) / stds), 1, keepdim=True)


def _quantile(probability: Tensor, t: float) -> Tensor:
    """Return the inverse of `_cdf` at time t, by bisection."""
    low, high = torch.full_like(probability, -10.0), torch.full_like(probability, 10.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = _cdf(middle, t) < probability
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
