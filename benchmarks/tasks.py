"""Benchmark tasks: what is sampled, and the error of samples."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from exact_data import SlicedCramerDistance, World, build
from grids import grid
from problem import Budget, Draw, Options, Problem
from torch import Tensor

from sitkit.interpolants import GVP, Interpolant, Linear
from sitkit.samplers import KL, RK4, Diffusion, Sigma, sample

PATHS: dict[str, Interpolant] = {"linear": Linear(), "gvp": GVP()}
EQUATIONS: dict[str, Callable[[Interpolant], Diffusion | None]] = {
    "ode": lambda path: None,
    "sigma": lambda path: Sigma(path, 2.0),
    "kl": KL,
}
ODE_CALLS = (4, 5, 6, 8, 10, 12, 15, 16, 20, 25, 32, 40, 50, 64, 100)
SDE_CALLS = (5, 8, 10, 15, 20, 32, 50, 100)
SEARCH_SEED = 1_000


@dataclass(frozen=True)
class Setting:
    """A panel of the benchmark, for one data set."""

    world: str
    path: str
    w: str


@dataclass(frozen=True)
class Sizes:
    """Numbers of samples and seeds of a result, and of samples in the search for options."""

    count: int
    seeds: int
    search: int


class Task(Protocol):
    """A task to sample."""

    @property
    def name(self) -> str:
        """The name."""
        ...

    @property
    def borrows(self) -> tuple[str, ...]:
        """Tasks whose best options are the only candidates; empty if options are searched for."""
        ...

    @property
    def power(self) -> int:
        """The power in which errors are averaged, after that of the floor is subtracted."""
        ...

    def settings(self) -> list[Setting]:
        """Return the panels."""
        ...

    def calls(self, setting: Setting) -> tuple[int, ...]:
        """Return the values of NFE."""
        ...

    def sizes(self, setting: Setting) -> Sizes:
        """Return the numbers of samples and seeds."""
        ...

    def measure(
        self, setting: Setting, draw: Draw, options: Options, calls: int, seed: int, count: int
    ) -> tuple[float, int]:
        """Return the error of a method, and its NFE.

        Raises:
            OverBudget: it needs more NFE.
        """
        ...

    def floor(self, setting: Setting) -> float:
        """Return the root mean square error of exact samples."""
        ...


@dataclass(frozen=True)
class ExactTask:
    """Data with exact fields. The error is the distance to the converged end (ODE) or between distributions (SDE)."""

    name: str
    worlds: tuple[str, ...]
    ode: Sizes = Sizes(512, 5, 256)
    sde: Sizes = Sizes(20_000, 5, 4_000)
    paths: tuple[str, ...] = tuple(PATHS)
    equations: tuple[str, ...] = tuple(EQUATIONS)
    grid: tuple[int, ...] = ()
    borrows: tuple[str, ...] = ()
    power: int = 2

    def settings(self) -> list[Setting]:
        """Return the panels."""
        return [Setting(world, path, w) for w in self.equations for world in self.worlds for path in self.paths]

    def calls(self, setting: Setting) -> tuple[int, ...]:
        """Return the values of NFE."""
        return self.grid or (ODE_CALLS if setting.w == "ode" else SDE_CALLS)

    def sizes(self, setting: Setting) -> Sizes:
        """Return the numbers of samples and seeds."""
        return self.ode if setting.w == "ode" else self.sde

    def measure(
        self, setting: Setting, draw: Draw, options: Options, calls: int, seed: int, count: int
    ) -> tuple[float, int]:
        """Return the error of a method, and its NFE."""
        path = PATHS[setting.path]
        world = world_of(setting.world)
        budget = Budget(world.velocity(path), calls)
        problem = Problem(budget, path, EQUATIONS[setting.w](path), calls, generator_of(seed, 1))
        x = _start(count, world.size, seed)
        if setting.w == "ode":
            end = draw(problem, x, options)
            return distance(end, converged(setting.world, count, seed)), budget.calls
        return _sliced(setting.world)(draw(problem, x.float(), options)), budget.calls

    def floor(self, setting: Setting) -> float:
        """Return the distance of exact samples from the distribution of the data."""
        return 0.0 if setting.w == "ode" else _sliced(setting.world).floor(self.sde.count)


world_of: Callable[[str], World] = cache(build)


@cache
def _sliced(world: str) -> SlicedCramerDistance:
    return SlicedCramerDistance(world_of(world))


@cache
def converged(world: str, count: int, seed: int, steps: int = 200) -> Tensor:
    """Return the converged end of the ODE from the noise of a seed, (count, D) float64, equal for all paths."""
    path = Linear()
    x = _start(count, world_of(world).size, seed)
    return sample(RK4(world_of(world).velocity(path)), x, grid("both", path, steps, 0.0, 1.0))


def distance(x: Tensor, y: Tensor) -> float:
    """Return the root mean square distance of points (N, *)."""
    return float((x.double() - y.double()).flatten(1).square().sum(1).mean().sqrt())


def _start(count: int, size: int, seed: int) -> Tensor:
    return torch.randn(count, size, generator=generator_of(seed, 0), dtype=torch.float64)


def generator_of(seed: int, stream: int, device: str = "cpu") -> torch.Generator:
    """Return the random generator of a seed: stream 0 for the initial noise, 1 for the noise of SDEs."""
    return torch.Generator(device).manual_seed(2 * seed + stream)
