"""The benchmark task of a trained network."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from problem import Budget, Draw, Options, Problem
from tasks import EQUATIONS, Setting, Sizes, distance, generator_of
from torch import Tensor

from sitkit.interpolants import Interpolant
from sitkit.recipes.data.images import to_pixels
from sitkit.recipes.metrics import frechet_distance, moments
from sitkit.recipes.network.build import load_network
from sitkit.recipes.runs.run import Run
from sitkit.recipes.sampling.labels import Labels
from sitkit.samplers import Field, adaptive

NETWORK_CALLS = (5, 8, 10, 15, 20, 30, 50)


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
        noise = generator_of(seed, 1, self.device)
        made, ends = 0, []
        for x, field in trained.batches(count, seed, self.batch):
            budget = Budget(field, calls)
            w = EQUATIONS[setting.w](trained.path)
            with torch.no_grad():
                ends.append(draw(Problem(budget, trained.path, w, calls, noise), x, options).cpu())
            made = max(made, budget.calls)
        end = torch.cat(ends)
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
            ends = [
                adaptive(field, x, 0.0, 1.0, rtol=1e-5, atol=1e-5).cpu()
                for x, field in trained.batches(count, seed, self.batch)
            ]
            torch.save(torch.cat(ends), file)
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
        noise = torch.randn(count, *self.shape, generator=generator_of(seed, 0))
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
        partial(Labels(split.classes), 0),  # all classes in turn, for every seed
        moments(split.heldout.pixels.flatten(1).float() / 255),
        hashlib.sha256((checkpoint / "ema.safetensors").read_bytes()).hexdigest()[:12],
        device,
    )
