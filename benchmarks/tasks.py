"""Benchmark tasks: what is sampled, and the error of samples."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Protocol

import torch
from exact_data import SlicedCramerDistance, World, build
from grids import grid
from problem import Budget, Draw, Options, Problem
from torch import Tensor

from sitkit.interpolants import GVP, Interpolant, Linear
from sitkit.recipes.data.images import to_pixels
from sitkit.recipes.metrics import frechet_distance, moments
from sitkit.recipes.network.build import load_network
from sitkit.recipes.runs.run import Run
from sitkit.recipes.sampling.labels import Labels
from sitkit.samplers import KL, RK4, Diffusion, Field, Sigma, adaptive, sample

PATHS: dict[str, Interpolant] = {"linear": Linear(), "gvp": GVP()}
EQUATIONS: dict[str, Callable[[Interpolant], Diffusion | None]] = {
    "ode": lambda path: None,
    "sigma": lambda path: Sigma(path, 2.0),
    "kl": KL,
}
ODE_CALLS = (4, 5, 6, 8, 10, 12, 15, 16, 20, 25, 32, 40, 50, 64, 100)
SDE_CALLS = (5, 8, 10, 15, 20, 32, 50, 100)
NETWORK_CALLS = (5, 8, 10, 15, 20, 30, 50)
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
        problem = Problem(budget, path, EQUATIONS[setting.w](path), calls, _generator(seed, 1))
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
    return torch.randn(count, size, generator=_generator(seed, 0), dtype=torch.float64)


def _generator(seed: int, stream: int, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(2 * seed + stream)


@dataclass(frozen=True)
class NetworkTask:
    """A trained network without guidance, all classes in turn."""

    name: str
    folder: Path
    size: Sizes
    equations: tuple[str, ...]
    frechet: bool
    """Whether the error is the Frechet distance of pixels to held-out images, or the distance to the converged end."""
    cache: Path
    """Folder of cached converged ends."""
    grid: tuple[int, ...] = NETWORK_CALLS
    device: str = "cpu"
    batch: int = 1_000
    borrows: tuple[str, ...] = ("plane", "manifold")

    @property
    def power(self) -> int:
        """The power in which errors are averaged: Frechet distances are already squares."""
        return 1 if self.frechet else 2

    def seconds(self, equations: Iterable[str]) -> float:
        """Return the approximate seconds to run one method for each of these equations."""
        x, field = next(_trained(self.folder, self.device).batches(self.batch, 0, self.batch))
        with torch.no_grad():
            field(x, torch.full((len(x),), 0.5, device=x.device))
            start = time.perf_counter()
            field(x, torch.full((len(x),), 0.5, device=x.device))
            row = (time.perf_counter() - start) / len(x)
        return len([*equations]) * sum(self.grid) * row * (self.size.seeds * self.size.count + 4 * self.size.search)

    def settings(self) -> list[Setting]:
        """Return the panels."""
        return [Setting(self.name, "linear", w) for w in self.equations]

    def calls(self, setting: Setting) -> tuple[int, ...]:
        """Return the values of NFE."""
        return self.grid

    def sizes(self, setting: Setting) -> Sizes:
        """Return the numbers of samples and seeds."""
        return self.size

    def measure(
        self, setting: Setting, draw: Draw, options: Options, calls: int, seed: int, count: int
    ) -> tuple[float, int]:
        """Return the error of a method, and its NFE."""
        trained = _trained(self.folder, self.device)
        noise = _generator(seed, 1, self.device)
        made, pieces = 0, []
        for x, field in trained.batches(count, seed, self.batch):
            budget = Budget(field, calls)
            w = EQUATIONS[setting.w](trained.path)
            with torch.no_grad():
                pieces.append(draw(Problem(budget, trained.path, w, calls, noise), x, options).cpu())
            made = max(made, budget.calls)
        end = torch.cat(pieces)
        if not self.frechet:
            return distance(end, self._converged(count, seed)), made
        if not end.isfinite().all():
            return float("inf"), made
        return frechet_distance(*moments(to_pixels(end).flatten(1).float() / 255), *trained.heldout), made

    def floor(self, setting: Setting) -> float:
        """Return 0: the floor is unknown for a trained network."""
        return 0.0

    def _converged(self, count: int, seed: int) -> Tensor:
        trained = _trained(self.folder, self.device)
        file = self.cache / f"{self.name}-{trained.mark}-{count}-{seed}.pt"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            pieces = [
                adaptive(field, x, 0.0, 1.0, rtol=1e-5, atol=1e-5).cpu()
                for x, field in trained.batches(count, seed, self.batch)
            ]
            torch.save(torch.cat(pieces), file)
        end: Tensor = torch.load(file, weights_only=True)
        return end


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """The latest network of a run."""

    network: torch.nn.Module
    path: Interpolant
    field: Callable[[Callable[..., Tensor]], Field]
    shape: tuple[int, ...]
    labels: Callable[[Tensor], Tensor | None]
    heldout: tuple[Tensor, Tensor]
    mark: str
    """A digest of the weights."""
    device: str

    def batches(self, count: int, seed: int, size: int) -> Iterator[tuple[Tensor, Field]]:
        """Yield noise and velocity, `size` samples at a time."""
        noise = torch.randn(count, *self.shape, generator=_generator(seed, 0))
        for index in torch.split(torch.arange(count), size):
            labels = self.labels(index)
            model = self.network if labels is None else partial(self.network, y=labels.to(self.device))
            yield noise[index].to(self.device), self.field(_single(model))


def _single(model: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a model that accepts times of any precision."""
    return lambda x, t: model(x, t.to(x.dtype))


@cache
def _trained(folder: Path, device: str) -> TrainedNetwork:
    run = Run.find(folder)
    recipe = run.recipe()
    split = recipe.data.build()
    checkpoint = run.latest()
    path = recipe.path.build()
    return TrainedNetwork(
        load_network(recipe, split, checkpoint, torch.device(device)),
        path,
        recipe.objective.build(path=path).field,
        tuple(split.training.pixels.shape[1:]),
        partial(Labels(split.classes), 0),  # every class in turn, whatever the seed
        moments(split.heldout.pixels.flatten(1).float() / 255),
        hashlib.sha256((checkpoint / "ema.safetensors").read_bytes()).hexdigest()[:12],
        device,
    )
