"""Solve a recipe's ODE or SDE from the states at its first time: solver, times, last step, and guidance."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sitkit.interpolants import TwoSided
from sitkit.objectives import Hybrid, LossCurve
from sitkit.samplers import (
    SDE,
    ClassifierFree,
    Conditional,
    Euler,
    Exponential,
    ExponentialEuler,
    Field,
    Keyed,
    Mean,
    OneStep,
    Tweedie,
    grids,
    sample,
)

from ..experiment.auto_values import resolve_sampler, sampling_path, sampling_velocity, time_grid
from ..experiment.recipe import Recipe
from ..network.conditions import with_source_channels


@dataclass(frozen=True, eq=False)
class Start:
    """What samples start from: (B, C, H, W) each."""

    noise: Tensor
    """Standard normal noise."""
    source: Tensor | None
    """Sources, if the path is two-sided."""
    condition: Tensor | None
    """What the network sees of the sources, if it is conditioned on them."""
    labels: Tensor | None
    """(B,), if there are classes."""


def solve(
    network: Callable[..., Tensor], recipe: Recipe, start: Start, null: int, keyed: Keyed, curve: LossCurve | None
) -> Tensor:
    """Return the states at the end of the sampler's times.

    On a path from noise, the state at the first time is the noise, scaled. On a two-sided path, it is the source, moved
    by `TwoSidedStep` if that time is not 0.

    Args:
        network: called as (x, t, y=labels), or without y if there are no classes.
        recipe: with the sampler and guidance.
        start: what samples start from.
        null: the label of no class.
        keyed: the noise of an SDE's steps.
        curve: the network's loss, for a w(t) that is computed from it.

    Raises:
        ValueError: the sampler cannot take its steps.
    """
    path, objective, sampler = sampling_path(recipe), recipe.build_objective(), resolve_sampler(recipe)
    model = conditioned_field(network, recipe, start.labels, start.condition, null, start.noise.shape[1])
    velocity = sampling_velocity(recipe, objective.field(model))
    times, w = time_grid(sampler, path), None
    last_steps: dict[str, OneStep] = {"euler": Euler(velocity)}
    if recipe.two_sided:
        assert start.source is not None
        x = start.source
        last_steps["tweedie"] = step = TwoSidedStep(model, path)
        if times[0] > 0:
            x = step.first(x, start.noise, times[0])
    else:
        x = start.noise * path.sigma(times[0])
        last_steps["tweedie"] = Tweedie(velocity, path)
    assert sampler.solver is not None
    if sampler.kind == "ode":
        solver = sampler.solver.build(velocity=velocity, path=path, w=None)
    else:
        w = sampler.w.build(path=path, loss_curve=curve)
        sde = SDE.of(objective.scored(model), w) if recipe.two_sided else SDE(velocity, path, w)
        solver = sampler.solver.build(sde=sde, velocity=velocity, path=path, w=w, model=model, noise=keyed)
        last_steps["mean"] = Mean(sde)
    if isinstance(solver, Exponential | ExponentialEuler):
        times = grids.through(times, velocity, w)  # as `plan` does
    return sample(solver, x, times, last_steps.get(sampler.last))


@dataclass(frozen=True, eq=False)
class TwoSidedStep(OneStep):
    """A step along a two-sided path that is finite at both ends, where the velocity may be infinite.

    x_s = x_t + (s - t) v + (gamma(s) - gamma(t)) eta, for a network that predicts v, the drift, and eta, the noise. It
    is Euler's step, except that the noise changes with gamma instead of with time. At s = 1 it ends at the expected
    data, up to the curvature of alpha and beta. NFE: one per step.

    Args:
        model: the network as a field, with twice the channels of the state.
        path: the two-sided path.
    """

    order: ClassVar[int] = 1
    model: Field
    path: TwoSided

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s, (B, C, H, W), from state x at time t. Times are scalars."""
        drift, noise = self._predict(x, t)
        return x + (s - t).to(x.dtype) * drift + (self.path.gamma(s) - self.path.gamma(t)).to(x.dtype) * noise

    def first(self, source: Tensor, noise: Tensor, s: Tensor) -> Tensor:
        """Return the state at time s, from sources at time 0 and the path's noise, (B, C, H, W) each."""
        drift, _ = self._predict(source, torch.zeros_like(s))
        return source + s.to(source.dtype) * drift + self.path.gamma(s).to(source.dtype) * noise

    def _predict(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        drift, noise = self.model(x, t.to(x.device, x.dtype).expand(len(x))).chunk(2, dim=1)
        return drift, noise


def conditioned_field(
    network: Callable[..., Tensor],
    recipe: Recipe,
    labels: Tensor | None,
    condition: Tensor | None,
    null: int,
    in_channels: int,
) -> Field:
    """Return the network as a field for these labels and further input channels, with the recipe's guidance.

    Guidance replaces labels only. A learned variance is not guided.
    """
    y: Any = labels
    null_y: Any = null
    if recipe.conditions_on_source:
        network, y, null_y = with_source_channels(network), (labels, condition), (null, condition)
    guidance = recipe.guidance
    if guidance.scale == 1 or labels is None:
        return Conditional(network, y)
    state_channels = in_channels if recipe.objective.target is Hybrid else None
    channels = state_channels if guidance.channels == "all" else guidance.channels
    return ClassifierFree(network, y, null_y, guidance.scale, guidance.interval, channels)
