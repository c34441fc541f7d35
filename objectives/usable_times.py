"""The interval of times in which the velocity of a prediction is finite and determines the data.

| end | path and prediction | reason | first or last usable time |
| --- | --- | --- | --- |
| t = 0 | alpha_dot(0) or sigma_dot(0) is infinite | the velocity of a sample is infinite | 1e-5 |
| t = 0 | alpha(0) = 0, the network predicts noise or score | the conversion to velocity divides by alpha | 1e-5 |
| t = 0 | alpha(0) = alpha_dot(0) = 0 | the velocity does not depend on the data | 1e-2 |
| t = 1 | alpha_dot(1) or sigma_dot(1) is infinite (`VP`, `DDPM`) | the velocity of a sample is infinite | 1 - 1e-5 |
| t = 1 | sigma(1) = 0, the network predicts data | the conversion to velocity divides by sigma | 1 - 1e-3 |
| both | gamma_dot is infinite (`Bridge`) | the conversion to velocity multiplies by gamma_dot | 1e-5, 1 - 1e-5 |

Solvers that do not evaluate the velocity at the last time, such as `Exponential`, `DDIM` and `EulerMaruyama`, may end
at t = 1 in all cases. The times are those of table 10 of the paper (arXiv 2401.08740). The errors of a network also
grow towards such an end, so a coarse grid should stay about one step away from it. On a two-sided path, the score, and
with it an SDE with w > 0, also needs gamma > 0, which excludes both ends.
"""

import torch
from torch import Tensor

from .protocols import Field, Path, TwoSidedPath
from .quantities import Quantity, Velocity


def usable_times(path: Path | TwoSidedPath, predict: type[Quantity] = Velocity) -> tuple[float, float]:
    """Return the first and last usable time in [0, 1] of a network that predicts `predict` along `path`.

    On a two-sided path, the network predicts drift and noise instead of `predict`.

    Outside of this interval, a solver that evaluates the velocity raises ValueError. The interval does not account for
    accuracy: at t = 1e-5, an error of a predicted noise or score is divided by alpha(1e-5). With N steps, prefer to
    start at 1 / N.
    """
    if isinstance(path, TwoSidedPath):
        return _usable_times_of_two_sided(path)
    return usable_times_of(lambda x_t, t: predict.to_velocity(path, x_t / 3, x_t, t), path)


def usable_times_of(velocity: Field, path: Path | TwoSidedPath) -> tuple[float, float]:
    """Return the first and last usable time of any velocity field along `path`, such as `objective.field(model)`."""
    if isinstance(path, TwoSidedPath):
        return _usable_times_of_two_sided(path)
    zero, one = torch.tensor([0.0, 1.0], dtype=torch.float64, device="cpu")
    start, end = 0.0, 1.0
    if not (_derivatives_are_finite(path, zero) and _is_finite_at(velocity, 0.0)):
        start = 1e-5
    if path.alpha(zero) == 0 and path.alpha_dot(zero) == 0:
        start = 1e-2
    if not _derivatives_are_finite(path, one):
        end = 1 - 1e-5
    elif not _is_finite_at(velocity, 1.0):
        end = 1 - 1e-3
    return start, end


def _usable_times_of_two_sided(path: TwoSidedPath) -> tuple[float, float]:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64, device="cpu")
    start, end = path.gamma_dot(ends).isfinite().tolist()
    return (0.0 if start else 1e-5), (1.0 if end else 1 - 1e-5)


def _derivatives_are_finite(path: Path, t: Tensor) -> bool:
    """Return whether alpha_dot and sigma_dot are finite at a time."""
    return bool((path.alpha_dot(t).isfinite() & path.sigma_dot(t).isfinite()).all())


def _is_finite_at(velocity: Field, time: float) -> bool:
    """Return whether a velocity field is finite at a time, for the state x = 2."""
    x, t = torch.full((1, 1), 2.0, device="cpu"), torch.tensor([time], device="cpu")
    try:
        value: Tensor = velocity(x, t)
    except ValueError:
        return False
    return bool(value.isfinite().all())
