"""The best that is known here for a number of network calls."""

from numbers import Integral
from typing import NamedTuple

from torch import Tensor

from . import grids
from .exponential import Exponential
from .noise import white
from .protocols import Diffusion, Field, NoiseSource, Path, Solver


class Plan(NamedTuple):
    """What `sample` needs: a solver and times. Edit it by `_replace`, or print it."""

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
    """Return solver and times for a number of calls of the velocity: sample(plan.solver, eps, plan.times).

    The rule, for any path and any w: `Exponential` of order 3 with its corrector, one call a step, on the times of
    `grids.power` with exponent 3/2. It asks neither network nor data. Equal steps of alpha / (alpha + sigma) suit what
    is large in the data, as the leading directions of images, and steps that shrink to the end suit detail: 3/2 lies
    between. If the data have no large directions `grids.fitted` is better, and `grids.measured` fits a network.

    Args:
        velocity: a velocity along `path`.
        path: of the velocity.
        w: the diffusion coefficient; None is the ODE.
        evaluations: how many calls may be made, 1 or more; all are.
        interval: where to begin and end. At its low end the velocity, at its inside w, must be finite.
        noise: of the SDE.

    Raises:
        ValueError: no call is allowed, or no interval.
    """
    if not isinstance(evaluations, Integral) or evaluations < 1:
        raise ValueError(f"evaluations must be a whole number, at least 1, got {evaluations}")
    times = grids.through(grids.power(path, evaluations, interval=interval), velocity)
    return Plan(Exponential(velocity, path, w, noise=noise), times)
