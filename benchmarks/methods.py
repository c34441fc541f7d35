"""The compared sampling methods, with their options."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import diffusers_samplers
import torch
from grids import GRIDS, grid
from problem import Axes, Draw, Options, Problem
from torch import Tensor

from sitkit import samplers
from sitkit.samplers import (
    RK4,
    SDE,
    Euler,
    EulerMaruyama,
    Heun,
    Mean,
    OneStep,
    StochasticHeun,
    Tweedie,
    plan,
    sample,
    sdeint,
)

LAST = ("mean 0.04", "mean 0.02", "mean 0.01", "mean 1/n", "tweedie 0.04", "tweedie 0.02", "tweedie 0.01", "none")
TOLERANCES = tuple(10 ** (-k / 2) for k in range(-2, 15))


@dataclass(frozen=True)
class Method:
    """A sampling method, the equations that it solves ("ode", "sigma", "kl"), and its options."""

    name: str
    draw: Draw
    solves: tuple[str, ...]
    axes: Axes = field(default_factory=dict)
    more: Mapping[str, Axes] = field(default_factory=dict)
    """Further options for some of the equations."""

    def choices(self, w: str) -> Axes:
        """Return the options for the equation w."""
        return {**self.axes, **self.more.get(w, {})}


def planned(problem: Problem, x: Tensor, options: Options) -> Tensor:
    """Sample with `plan` and its defaults."""
    chosen = plan(
        problem.velocity,
        problem.path,
        w=problem.w,
        evaluations=problem.calls,
        interval=(0.0, 1.0),
        noise=problem.noise,
    )
    return sample(chosen.solver, x, chosen.times)


def one_step(solver: Callable[[Any], OneStep], cost: int) -> Draw:
    """Return a sampler: a one-step solver of the ODE on a grid."""

    def draw(problem: Problem, x: Tensor, options: Options) -> Tensor:
        times = grid(str(options["grid"]), problem.path, problem.steps(cost), 0.0, 1.0)
        return sample(solver(problem.velocity), x, times)

    return draw


def official_ode(problem: Problem, x: Tensor, options: Options) -> Tensor:
    """Sample with Heun on an even grid, as the official code of SiT does."""
    return sample(Heun(problem.velocity), x, torch.linspace(0, 1, problem.steps(2) + 1, dtype=torch.float64))


@dataclass(frozen=True)
class OfficialSDE(SDE):
    """The drift of the official code of SiT: one call for the velocity and another for the score."""

    def __call__(self, x: Tensor, t: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return the drift and w."""
        w = self.coefficient(t)
        velocity, again = (self.velocity(x, t.expand(len(x))) for _ in range(2))
        return velocity + w.to(x.dtype) / 2 * self.path.score_from_velocity(again, x, t), w


def official_sde(problem: Problem, x: Tensor, options: Options) -> Tensor:
    """Sample with Euler-Maruyama as the official code: an even grid to .96, and a last step without noise."""
    assert problem.w is not None
    low = 1e-3 if isinstance(problem.w, samplers.KL) else 0.0
    sde = OfficialSDE(problem.velocity, problem.path, problem.w)
    times = torch.linspace(low, 0.96, problem.steps(2, 2) + 1, dtype=torch.float64)
    return sample(EulerMaruyama(sde, problem.noise), x, torch.cat([times, times.new_ones(1)]), Mean(sde))


Advance = Callable[[Tensor, Tensor], Tensor]
"""Maps (x, times) to the state at the last time."""


def stochastic(solve: Callable[[SDE, Problem, Options], tuple[Advance, int, int]]) -> Draw:
    """Return a sampler: an SDE solver on a grid, and a last step; `solve` returns its calls per step and besides."""

    def draw(problem: Problem, x: Tensor, options: Options) -> Tensor:
        assert problem.w is not None
        sde = SDE(problem.velocity, problem.path, problem.w)
        advance, cost, first = solve(sde, problem, options)
        kind, _, length = str(options["last"]).partition(" ")
        low, last = problem.start(options), 0.0
        if kind != "none":
            last = (1 - low) / problem.calls if length == "1/n" else float(length)
        steps = problem.steps(cost, first + (kind != "none"))
        times = grid(str(options["grid"]), problem.path, steps, low, 1 - last)
        x = advance(x * problem.path.sigma(times[0]), times)
        if kind == "none":
            return x
        jump: OneStep = Mean(sde) if kind == "mean" else Tweedie(problem.velocity, problem.path)
        with torch.no_grad():
            return jump.step(x, times[-1], torch.ones_like(times[-1]))

    return draw


def _one_step_sde(solver: type[EulerMaruyama] | type[StochasticHeun], cost: int) -> Draw:
    def solve(sde: SDE, problem: Problem, options: Options) -> tuple[Advance, int, int]:
        return lambda x, times: sample(solver(sde, problem.noise), x, times), cost, 0

    return stochastic(solve)


def _torchsde(sde: SDE, problem: Problem, options: Options) -> tuple[Advance, int, int]:
    method = str(options["method"])
    cost, first = {"heun": (2, 0), "reversible_heun": (1, 1)}[method]
    return lambda x, times: sdeint(sde, x, times, method=method, noise=problem.noise), cost, first


def torchdiffeq_fixed(problem: Problem, x: Tensor, options: Options) -> Tensor:
    """Sample with a fixed-step method of torchdiffeq."""
    import torchdiffeq  # noqa: PLC0415 (it takes a second)

    method = str(options["method"])
    cost = {"midpoint": 2, "heun3": 3, "rk4": 4}[method]
    times = grid(str(options["grid"]), problem.path, problem.steps(cost), 0.0, 1.0)
    with torch.no_grad():
        states = torchdiffeq.odeint(lambda t, y: problem.velocity(y, t.expand(len(y))), x, times, method=method)
    end: Tensor = states[-1]
    return end


def torchdiffeq_adaptive(problem: Problem, x: Tensor, options: Options) -> Tensor:
    """Sample with dopri5 of torchdiffeq at a given tolerance."""
    import torchdiffeq  # noqa: PLC0415 (it takes a second)

    tolerance = float(options["tolerance"])
    with torch.no_grad():
        states = torchdiffeq.odeint(
            lambda t, y: problem.velocity(y, t.clamp(0, 1).expand(len(y))),
            x,
            torch.tensor([0.0, 1.0], dtype=torch.float64),
            method="dopri5",
            rtol=tolerance,
            atol=tolerance,
        )
    end: Tensor = states[-1]
    return end


def flow_matching(problem: Problem, x: Tensor, options: Options) -> Tensor:
    """Sample with ODESolver of flow_matching at a fixed step size."""
    method = str(options["method"])
    steps = problem.steps({"midpoint": 2, "heun3": 3, "rk4": 4}[method])
    solver = import_module("flow_matching.solver").ODESolver(lambda x, t: problem.velocity(x, t.expand(len(x))))
    size = (1 + 1e-9) / steps  # or else rounding may add a step
    end: Tensor = solver.sample(x, step_size=size, method=method, time_grid=torch.tensor([0, 1], dtype=torch.float64))
    return end


STARTS: Mapping[str, Axes] = {"kl": {"start": ("1e-3", "1e-2", "1/n")}}  # where w is infinite at t = 0
STOCHASTIC: Axes = {"grid": GRIDS, "last": LAST}

METHODS = (
    Method("sitkit", planned, ("ode", "sigma", "kl")),
    Method("official SiT, Heun", official_ode, ("ode",)),
    Method("official SiT, Euler-Maruyama", official_sde, ("sigma", "kl")),
    Method("Euler", one_step(Euler, 1), ("ode",), {"grid": GRIDS}),
    Method("Heun", one_step(Heun, 2), ("ode",), {"grid": GRIDS}),
    Method("RK4", one_step(RK4, 4), ("ode",), {"grid": GRIDS}),
    Method("Euler-Maruyama", _one_step_sde(EulerMaruyama, 1), ("sigma", "kl"), STOCHASTIC, STARTS),
    Method("stochastic Heun", _one_step_sde(StochasticHeun, 2), ("sigma", "kl"), STOCHASTIC, STARTS),
    Method(
        "torchsde",
        stochastic(_torchsde),
        ("sigma", "kl"),
        {"method": ("heun", "reversible_heun"), **STOCHASTIC},
        STARTS,
    ),
    Method("torchdiffeq", torchdiffeq_fixed, ("ode",), {"method": ("midpoint", "heun3", "rk4"), "grid": GRIDS}),
    Method("torchdiffeq dopri5", torchdiffeq_adaptive, ("ode",), {"tolerance": TOLERANCES}),
    Method("flow_matching", flow_matching, ("ode",), {"method": ("midpoint", "heun3", "rk4")}),
    *(Method(one.name, one.draw, one.solves, one.axes, one.more) for one in diffusers_samplers.DIFFUSERS_SAMPLERS),
)
