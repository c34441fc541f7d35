"""Resolves `auto`: the times to train on, the solver, the times to sample at, and the last step.

Each value follows from how the path, the objective and the solver behave at t = 0 and t = 1, so that a change of one
component needs no other change.

The default solver is that of `samplers.plan`: `Exponential`, for the ODE and for every SDE, on the times of
`grids.power`. Other solvers use `grids.uniform`. `Exponential` starts anew where a guidance interval starts or ends,
and times are moved there (`grids.through`). Sampling runs over all of [0, 1], with these exceptions (SiT, arXiv
2401.08740, table 10, whose time runs the other way):

| where | condition | then |
| --- | --- | --- |
| start | the velocity is not usable (`sitkit.objectives.usable_times`) | one step later, at a usable time |
| end | the velocity is not usable | at its last usable time |
| start | w = KL, infinite where alpha = 0, and not `Exponential` | one step later |
| end | an SDE, whose noise would remain in the image | a noiseless step (`mean`) over the last 0.04 |
| end | a solver that lands on data (`Exponential`, `DDIM`, ancestral ones) | at 1, without another step |
| end | data are predicted: the velocity is infinite where sigma = 0 | an `euler` step, which lands on data |

On a two-sided path, the default solvers are `Heun` and `StochasticHeun`, on the times of `grids.uniform`:

| where | condition | then |
| --- | --- | --- |
| start | the velocity is infinite (`Bridge`), or an SDE, whose score is infinite | one step later |
| end | the same | the expected data (`tweedie`) after the last step: 0.04 long for an SDE, else as the others |

For an SDE, "one step later" is at least 1e-3.
"One step later" is 1 / (steps + 1), where the state is taken to be pure noise. The paper starts at 1e-5 and 1e-3; from
there, a step of length h multiplies the errors of a network by h / 1e-5. On a ring of Gaussians, 50 steps of Heun's
method with learned noise ended at an energy distance of 23 from 1e-5, and of 0.04 from 1 / 50.

Training uses all of [0, 1] at whose ends the loss is finite. Otherwise it starts at 1e-3, and ends at 1 - 1e-5 on a
path whose sigma_dot(1) is infinite, at 0.95 if data are predicted and the error is not measured in data (JiT clips
there, arXiv 2511.13720), and else at 1 - 1e-3.
"""

import json
from typing import Any

import torch
from torch import Tensor

from sitkit.interpolants import Interpolant, TwoSided
from sitkit.objectives import Data, Field, Hybrid, usable_times_of
from sitkit.samplers import (
    DDIM,
    Ancestral,
    Exponential,
    ExponentialEuler,
    Heun,
    LearnedAncestral,
    StochasticHeun,
    reparametrise,
)

from ..support.names import snake_case
from ..support.trust import Trust
from . import slots
from .components import dump
from .recipe import Recipe
from .sampler import Sampler
from .two_sided import check_bridge

LAST_STEP = 0.04
EXPONENTIAL = (Exponential, ExponentialEuler)
"""Solvers that take a w(t) which is infinite at t = 0."""
LANDING = (*EXPONENTIAL, DDIM, Ancestral, LearnedAncestral)
"""Solvers whose last step ends at the expected data, for any velocity at t = 1."""


def resolve_auto(recipe: Recipe) -> Recipe:
    """Return the recipe with the values that `auto` stands for in `train.interval` and `sampler`."""
    train = recipe.train.model_copy(update={"interval": train_interval(recipe)})
    return recipe.model_copy(update={"train": train, "sampler": resolve_sampler(recipe)})


def train_interval(recipe: Recipe) -> tuple[float, float]:
    """Return the interval of times to train on."""
    if recipe.train.interval != "auto":
        return recipe.train.interval
    path, objective = recipe.path.build(), recipe.build_objective()
    extreme = recipe.train.times.build()(torch.tensor([0.0, 1 - 2.0**-24]))
    ends = torch.where((extreme - extreme.round()).abs() < 1e-4, extreme.round(), extreme)  # a grid never reaches t = 1
    start, end = (_loss_is_finite(objective, at) for at in ends)
    clipped = 1 - 1e-05 if _sigma_dot_is_infinite(path) else 0.95 if _predicts_data(objective) else 1 - 0.001
    return 0.0 if start else 1e-3, 1.0 if end else clipped


def _loss_is_finite(objective: Any, at: Tensor) -> bool:
    """Return whether the loss at a time is finite; an objective may raise where it is not."""
    data, noise = torch.full((1, 1), 2.0), torch.ones(1, 1)
    start = (noise, noise) if _is_bridging(objective) else (noise,)
    try:
        return bool(objective(_network(objective), data, *start, at[None]).isfinite())
    except ValueError:
        return False


def resolve_sampler(recipe: Recipe) -> Sampler:
    """Return the sampler of a recipe with the values that `auto` stands for."""
    sampler, path = recipe.sampler, sampling_path(recipe)
    if recipe.two_sided:
        check_bridge(recipe)
    objective = recipe.build_objective()
    velocity = sampling_velocity(recipe, objective.field(_network(objective)))
    stochastic = sampler.kind == "sde"
    default_solver = (StochasticHeun if stochastic else Heun) if recipe.two_sided else Exponential
    solver = sampler.solver.target if sampler.solver else default_solver
    lands = issubclass(solver, LANDING)
    last: str = sampler.last
    if last == "auto":
        last = "none" if lands else "mean" if stochastic else "euler" if _predicts_data(objective) else "none"
        if recipe.two_sided:
            last = "tweedie" if stochastic or usable_times_of(velocity, path)[1] < 1 else "none"
    low, high = (_start(recipe, path, velocity, solver), 1.0)
    if last == "none" and not lands:
        high = usable_times_of(velocity, path)[1]
        high = min(high, 1 - 1e-3) if recipe.two_sided and stochastic else high
    low, high = (low, high) if sampler.interval == "auto" else sampler.interval
    default = LAST_STEP if last == "mean" or (recipe.two_sided and stochastic) else (high - low) / sampler.steps
    last_step = default if sampler.last_step == "auto" else sampler.last_step
    resolved = {
        "solver": dump(sampler.solver) or snake_case(solver.__name__),
        "times": dump(sampler.times) or ("power" if issubclass(solver, EXPONENTIAL) else "uniform"),
        "interval": [low, high],
        "last": last,
        "last_step": min(last_step, (high - low) / 2) if sampler.steps > 1 else high - low,
    }
    table = json.dumps(sampler.model_dump(mode="json") | resolved)
    return Sampler.model_validate_json(table, context=Trust.of(sampler))


def sampling_path(recipe: Recipe) -> Any:
    """Return the path to sample along: `sampler.path`, or the one that the network was trained on."""
    path: Interpolant | TwoSided = (recipe.sampler.path or recipe.path).build()
    return path


def sampling_velocity(recipe: Recipe, velocity: Field) -> Field:
    """Return the velocity along the path to sample along, made of the velocity along the path of training."""
    if recipe.sampler.path is None:
        return velocity
    return reparametrise(velocity, recipe.path.build(), sampling_path(recipe))


def velocity_interval(recipe: Recipe) -> tuple[float, float]:
    """Return the first and the last time at which the velocity of the recipe's network is finite."""
    objective = recipe.build_objective()
    start, end = usable_times_of(objective.field(_network(objective)), recipe.path.build())
    return max(start, 1e-3) if start else 0.0, end


def _start(recipe: Recipe, path: Any, velocity: Field, solver: type) -> float:
    """Return the time to start from: 0, unless the velocity is not usable there or w is infinite."""
    stochastic = recipe.sampler.kind == "sde"
    least, _ = usable_times_of(velocity, path)
    if recipe.two_sided and not stochastic:
        return 1 / (recipe.sampler.steps + 1) if least else 0.0
    w = recipe.sampler.w.build(path=path, loss_curve=torch.ones_like)  # the loss curve does not make w infinite
    zero = torch.zeros((), dtype=torch.float64)
    infinite = not issubclass(solver, EXPONENTIAL) and not torch.as_tensor(w(zero)).isfinite()
    infinite |= recipe.two_sided  # the score
    if stochastic and (least or infinite):
        least = max(least, 1e-3)
    return max(least, 1 / (recipe.sampler.steps + 1)) if least else 0.0


def _network(objective: Any) -> Field:
    """Return a placeholder network with finite output, and the number of channels that the objective needs."""
    double = isinstance(objective, Hybrid) or _is_bridging(objective)
    return lambda x, t: torch.cat([x / 3] * (2 if double else 1), dim=1)


def _is_bridging(objective: Any) -> bool:
    return slots.is_two_sided_objective(type(objective))


def _sigma_dot_is_infinite(path: Any) -> bool:
    """Return whether sigma_dot is infinite at t = 1. A two-sided path has none."""
    return not isinstance(path, TwoSided) and not path.sigma_dot(torch.ones((), dtype=torch.float64)).isfinite()


def _predicts_data(objective: Any) -> bool:
    return getattr(objective, "predict", None) is Data


def time_grid(sampler: Sampler, path: Any) -> Tensor:
    """Return the times of a resolved sampler, (steps + 1,) float64."""
    assert sampler.times is not None
    assert sampler.interval != "auto"
    assert sampler.last_step != "auto"
    low, high = sampler.interval
    one_grid = sampler.last == "none" or sampler.steps == 1
    steps, end = (sampler.steps, high) if one_grid else (sampler.steps - 1, high - sampler.last_step)
    times: Tensor = sampler.times.build(path=path, steps=steps, interval=(low, end))
    return times if one_grid else torch.cat([times, times.new_tensor([high])])
