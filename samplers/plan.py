"""A default solver and grid of times for a given number of function evaluations (NFE)."""

from numbers import Integral
from typing import NamedTuple

from torch import Tensor

from . import grids
from .exponential import Exponential
from .noise import white
from .path_from_noise import check_from_noise
from .protocols import Diffusion, Field, NoiseSource, Path, Solver


class Plan(NamedTuple):
    """A solver and a grid of times, the arguments of `sample`. Change fields by `_replace`."""

    solver: Solver
    times: Tensor


def plan(
    velocity: Field,
    path: Path,
    *,
    w: Diffusion | None = None,
    evaluations: int,
    interval: tuple[float, float] = (0.0, 1.0),
    noise: NoiseSource = white,
) -> Plan:
    """Return a solver and times with the given NFE, to be used as `sample(plan.solver, eps, plan.times)`.

    For any path and w, the solver is `Exponential` of order 3 with corrector, with one NFE per step, and the times are
    those of `grids.power` with exponent 3/2, moved onto the jumps of the velocity and of w. The choice does not use the
    network or the data. Equal steps of alpha / (alpha + sigma) are best for directions of large variance, such as the
    leading directions of images, and steps that shrink towards the data are best for detail. The exponent 3/2 is a
    compromise. For data without large directions, `grids.fitted` is better. `grids.measured` adapts the grid to a
    network.

    Args:
        velocity: a velocity field along `path`.
        path: the path of the velocity.
        w: the diffusion coefficient. None is the ODE.
        evaluations: the NFE, 1 or more.
        interval: the first and the last time. The velocity must be finite at the first time, and w between both.
        noise: the noise source of the SDE.

    Raises:
        ValueError: `evaluations` is less than 1, the path is two-sided, or `interval` is not (low, high) in [0, 1].
    """
    check_from_noise(path, "plan")
    if not isinstance(evaluations, Integral) or evaluations < 1:
        raise ValueError(f"evaluations must be a whole number, at least 1, got {evaluations}")
    times = grids.through(grids.power(path, evaluations, interval=interval), velocity, w)
    return Plan(Exponential(velocity, path, w, noise=noise), times)
