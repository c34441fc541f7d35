"""What `auto` stands for: the times to train on, the times to sample along, and the last step.

Each follows from how the parts behave at the two ends, so that changing one choice never needs a second change.

The solver is that of `samplers.plan`, `Exponential`, for the ODE and for every SDE, on the times of `grids.power`;
others go along `grids.uniform`. `Exponential` begins anew where guidance sets in or ends, and times are moved there
(`grids.through`). Sampling runs over all of [0, 1], except (SiT, arXiv 2401.08740, table 10, whose time
runs the other way):

| where | because | then |
| --- | --- | --- |
| start, velocity not usable | `sitkit.objectives.usable_times` | a step inside, its first time at least (SDE: 1e-3) |
| end, velocity not usable | the same | its last time |
| start, w = KL | w is infinite where alpha = 0, which only `Exponential` bears | a step inside, 1e-3 at least |
| end, an SDE | noise would stay in the picture | a noiseless step (`mean`) over the last .04 |
| end, solvers that land on data (`Exponential`, `DDIM`, ancestral ones) | their last step does | 1, no other step |
| end, data predicted | the velocity is infinite where sigma = 0 | an `euler` step, which lands on the prediction |

"A step inside" is 1 / (steps + 1), where noise alone is taken for the state. The paper has 1e-5 and 1e-3, from which
a step of length h magnifies the errors of a network by h / 1e-5: on a ring of Gaussians, 50 steps of Heun's method with
a learnt noise ended at an energy distance of 23 from 1e-5, and of .04 from 1 / 50.

Training draws times from all of [0, 1] at whose ends the objective is finite. Otherwise it starts at 1e-3, and ends at
1 - 1e-5 on a path whose sigma_dot(1) is infinite, at .95 if data are predicted and the error is not measured in data
(JiT clips there, arXiv 2511.13720), and else at 1 - 1e-3.
"""

import json
from typing import Any

import torch
from torch import Tensor

from sitkit.interpolants import Interpolant
from sitkit.objectives import Data, Field, Hybrid, usable_times_of
from sitkit.samplers import DDIM, Ancestral, Exponential, LearnedAncestral, reparametrise

from ..support.trust import Trust
from .components import dump
from .recipe import Recipe, Sampler

LAST_STEP = 0.04
LANDING = (Exponential, DDIM, Ancestral, LearnedAncestral)
"""Solvers whose last step lands on the data that are expected, whatever the velocity at t = 1."""


def resolve_auto(recipe: Recipe) -> Recipe:
    """Return the recipe with what `auto` stands for in its place, as far as it concerns times and steps."""
    train = recipe.train.model_copy(update={"interval": train_interval(recipe)})
    return recipe.model_copy(update={"train": train, "sampler": resolve_sampler(recipe)})


def train_interval(recipe: Recipe) -> tuple[float, float]:
    """Return the times to train on."""
    if recipe.train.interval != "auto":
        return recipe.train.interval
    path = recipe.path.build()
    objective = recipe.objective.build(path=path)
    reach = recipe.train.times.build()(torch.tensor([0.0, 1 - 2.0**-24]))
    ends = torch.where((reach - reach.round()).abs() < 1e-4, reach.round(), reach)  # a grid never comes to t = 1
    start, end = (_has_loss(objective, at) for at in ends)
    clipped = 1 - 1e-05 if _steep(path) else 0.95 if _predicts_data(objective) else 1 - 0.001
    return 0.0 if start else 1e-3, 1.0 if end else clipped


def _has_loss(objective: Any, at: Tensor) -> bool:
    """Return whether the loss at a time is finite; an objective may refuse a time at which it is not."""
    data, noise = torch.full((1, 1), 2.0), torch.ones(1, 1)
    try:
        return bool(objective(_network(objective), data, noise, at[None]).isfinite())
    except ValueError:
        return False


def resolve_sampler(recipe: Recipe) -> Sampler:
    """Return the recipe's sampler with its solver, interval and last step decided."""
    sampler, path = recipe.sampler, sampling_path(recipe)
    objective = recipe.objective.build(path=recipe.path.build())
    velocity = sampling_velocity(recipe, objective.field(_network(objective)))
    stochastic = sampler.kind == "sde"
    solver = sampler.solver.target if sampler.solver else Exponential
    lands = issubclass(solver, LANDING)
    last: str = sampler.last
    if last == "auto":
        last = "none" if lands else "mean" if stochastic else "euler" if _predicts_data(objective) else "none"
    low, high = (_start(recipe, path, velocity, solver), 1.0)
    if last == "none" and not lands:
        high = usable_times_of(velocity, path)[1]
    low, high = (low, high) if sampler.interval == "auto" else sampler.interval
    usual = LAST_STEP if last == "mean" else (high - low) / sampler.steps
    wanted = usual if sampler.last_step == "auto" else sampler.last_step
    decided = {
        "solver": dump(sampler.solver) or "exponential",
        "times": dump(sampler.times) or ("power" if solver is Exponential else "uniform"),
        "interval": [low, high],
        "last": last,
        "last_step": min(wanted, (high - low) / 2) if sampler.steps > 1 else high - low,
    }
    table = json.dumps(sampler.model_dump(mode="json") | decided)
    return Sampler.model_validate_json(table, context=Trust.of(sampler))


def sampling_path(recipe: Recipe) -> Interpolant:
    """Return the path that samples are led along."""
    path: Interpolant = (recipe.sampler.path or recipe.path).build()
    return path


def sampling_velocity(recipe: Recipe, velocity: Field) -> Field:
    """Return the velocity along the path that samples are led along, of that along the one that was learnt."""
    if recipe.sampler.path is None:
        return velocity
    return reparametrise(velocity, recipe.path.build(), sampling_path(recipe))


def velocity_interval(recipe: Recipe) -> tuple[float, float]:
    """Return the times, from noise to data, at which the velocity of the recipe's network is finite."""
    path = recipe.path.build()
    objective = recipe.objective.build(path=path)
    velocity = objective.field(_network(objective))
    start, end = usable_times_of(velocity, path)
    return max(start, 1e-3) if start else 0.0, end


def _start(recipe: Recipe, path: Any, velocity: Field, solver: type) -> float:
    """Return the first time: 0, unless velocity or w are infinite there or the velocity says nothing of the data."""
    stochastic = recipe.sampler.kind == "sde"
    least, _ = usable_times_of(velocity, path)
    w = recipe.sampler.w.build(path=path, loss_curve=torch.ones_like)  # whether w is finite is not the curve's affair
    zero = torch.zeros((), dtype=torch.float64)
    infinite = solver is not Exponential and not torch.as_tensor(w(zero)).isfinite()
    if stochastic and (least or infinite):
        least = max(least, 1e-3)
    return max(least, 1 / (recipe.sampler.steps + 1)) if least else 0.0


def _network(objective: Any) -> Field:
    """Return a network with finite output, and as many channels as the objective asks for."""
    return lambda x, t: torch.cat([x / 3] * (2 if isinstance(objective, Hybrid) else 1), dim=1)


def _steep(path: Any) -> bool:
    """Return whether sigma_dot is infinite at t = 1."""
    return not path.sigma_dot(torch.ones((), dtype=torch.float64)).isfinite()


def _predicts_data(objective: Any) -> bool:
    return getattr(objective, "predict", None) is Data


def time_grid(sampler: Sampler, path: Any) -> Tensor:
    """Return the times of a resolved sampler, (steps + 1,) float64."""
    assert sampler.times is not None
    assert sampler.interval != "auto"
    assert sampler.last_step != "auto"
    low, high = sampler.interval
    whole = sampler.last == "none" or sampler.steps == 1
    steps, end = (sampler.steps, high) if whole else (sampler.steps - 1, high - sampler.last_step)
    times: Tensor = sampler.times.build(path=path, steps=steps, interval=(low, end))
    return times if whole else torch.cat([times, times.new_tensor([high])])
