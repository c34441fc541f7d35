"""The times at which a prediction can be used: where the velocity that it stands for is finite and says something.

| at | path and prediction | because | first or last usable time |
| --- | --- | --- | --- |
| t = 0 | alpha_dot(0) or sigma_dot(0) infinite | so is the velocity of a sample | 1e-5 |
| t = 0 | alpha(0) = 0, noise or score predicted | the velocity divides by alpha | 1e-5 |
| t = 0 | alpha(0) = alpha_dot(0) = 0 | the velocity says nothing of the data | 1e-2 |
| t = 1 | alpha_dot(1) or sigma_dot(1) infinite (`VP`, `DDPM`) | so is the velocity of a sample | 1 - 1e-5 |
| t = 1 | sigma(1) = 0, data predicted | the velocity divides by sigma | 1 - 1e-3 |

A solver that does not ask the velocity at its last time, as `Exponential`, `DDIM` or `EulerMaruyama`, may still end at
t = 1. Towards an end where the velocity is infinite the errors of a network grow as the velocity does: these times are
those of the paper's table 10 (arXiv 2401.08740), and a coarse grid does better to stay a step away.
"""

import torch
from torch import Tensor

from .protocols import Field, Path
from .quantities import Quantity, Velocity


def usable_times(path: Path, predict: type[Quantity] = Velocity) -> tuple[float, float]:
    """Return the first and the last time of [0, 1] at which the velocity of a prediction along `path` can be used.

    Outside of them a solver that asks the velocity raises ValueError. They say nothing of accuracy: at 1e-5 an error of
    predicted noise or score is divided by alpha(1e-5), so that a grid of N steps does better from 1 / N on.
    """
    return usable_times_of(lambda x_t, t: predict.to_velocity(path, x_t / 3, x_t, t), path)


def usable_times_of(velocity: Field, path: Path) -> tuple[float, float]:
    """Return the same for the velocity along `path` of any network, such as `objective.field(model)`."""
    zero, one = torch.tensor([0.0, 1.0], dtype=torch.float64, device="cpu")
    start, end = 0.0, 1.0
    if not (rates_are_finite(path, zero) and is_finite_at(velocity, 0.0)):
        start = 1e-5
    if path.alpha(zero) == 0 and path.alpha_dot(zero) == 0:
        start = 1e-2
    if not rates_are_finite(path, one):
        end = 1 - 1e-5
    elif not is_finite_at(velocity, 1.0):
        end = 1 - 1e-3
    return start, end


def rates_are_finite(path: Path, t: Tensor) -> bool:
    """Return whether the velocity of a sample is finite at a time."""
    return bool((path.alpha_dot(t).isfinite() & path.sigma_dot(t).isfinite()).all())


def is_finite_at(velocity: Field, time: float) -> bool:
    """Return whether a velocity is finite at a time, at some state."""
    x, t = torch.full((1, 1), 2.0, device="cpu"), torch.tensor([time], device="cpu")
    try:
        value: Tensor = velocity(x, t)
    except ValueError:
        return False
    return bool(value.isfinite().all())
