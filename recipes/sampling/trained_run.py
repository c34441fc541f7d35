"""A trained run as components of the libraries: its network, path, objective and velocity."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sitkit.objectives import ScoredField
from sitkit.samplers import Field

from ..data.images import Split
from ..experiment.auto_values import velocity_interval
from ..experiment.recipe import Recipe
from ..network.build import all_channels, load_for_sampling
from ..network.precision import with_precision
from ..runs.run import Run
from ..support.errors import UserError
from ..support.limits import MOST_IMAGES, MOST_ROWS, MOST_SEED, whole_number
from ..support.random_streams import Stream, noise
from .generator import SampleBatch, SampleGenerator, generate
from .labels import Classes, Labels, labels_of
from .solve import conditioned_field
from .sources import SampleSources, SourceBatch


class TrainedRun:
    """A trained run, read from its newest checkpoint when it is first used.

    Args:
        run: the folder of the run.
        recipe: its recipe, with the sampler, guidance and evaluation to use.
        device: where to compute.
        ema: the EMA weights to use, as `--average` of the command line: `ema`, `ema-0.999`, `width-0.1`, ...

    `UserError` is raised on first use if there is no complete checkpoint, or if its weights do not fit the recipe.
    """

    def __init__(self, run: Run, recipe: Recipe, device: torch.device, ema: str = "ema"):
        self.run = Run(run.folder.absolute())  # files are read on first use, perhaps in another working directory
        self.recipe = recipe
        self.device = device
        self.ema = ema

    def __repr__(self) -> str:
        return f"TrainedRun({str(self.folder)!r}, ema={self.ema!r}, device={str(self.device)!r})"

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.run.folder

    @cached_property
    def checkpoint(self) -> Path:
        """The folder of the newest complete checkpoint."""
        return self.run.latest()

    @cached_property
    def network(self) -> nn.Module:
        """The network with its EMA weights, in evaluation mode on `device`; called as (x, t, y=labels).

        It returns what it predicts (`objective`). Solvers take `velocity` instead.
        """
        return load_for_sampling(self.recipe, self._split, self.checkpoint, self.device, self.ema)

    @cached_property
    def path(self) -> Any:
        """The path that the network was trained on: an `Interpolant`, or a `TwoSided` path."""
        return self.recipe.path.build()

    @cached_property
    def objective(self) -> Any:
        """The objective that the network was trained with: an `Objective`, or `Bridging` on a two-sided path."""
        return self.recipe.build_objective()

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of a state: of pixels, or of latents."""
        return self._split.training.shape

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by label; none if the network is unconditional."""
        return tuple(self._split.classes)

    def velocity(
        self, labels: Classes | None = None, *, guidance: float = 1.0, condition: Tensor | None = None
    ) -> Field:
        """Return the velocity that the network stands for, along `path`, for any solver of `sitkit.samplers`.

        On a two-sided path, it is infinite outside of `interval`.

        Args:
            labels: the classes; None for the unconditional velocity. Labels (B,) fit states (B, C, H, W) only.
            guidance: the scale of classifier-free guidance; 1 is none. Its interval and channels are the recipe's.
            condition: what the network sees of the sources, (B, C, H, W), if the recipe has `source.condition = true`.

        Returns:
            (x_t (B, C, H, W), t (B,)) -> (B, C, H, W) on `device`.

        Raises:
            UserError: there is no such class, or guidance without labels; or the condition is missing, or not used.
        """
        velocity: Field = self.objective.field(self._model(labels, guidance, condition))
        return velocity

    def scored(
        self, labels: Classes | None = None, *, guidance: float = 1.0, condition: Tensor | None = None
    ) -> ScoredField:
        """Return velocity and score of a two-sided path, for `SDE.of`. Arguments and errors are those of `velocity`.

        Raises:
            UserError: the path is from noise. There, `SDE` computes the score from the velocity.
        """
        if not self.recipe.two_sided:
            raise UserError(f"{self.folder} has a path from noise: use SDE(run.velocity(), run.path, w)")
        scored: ScoredField = self.objective.scored(self._model(labels, guidance, condition))
        return scored

    def source(self, n: int, *, seed: int = 0, labels: Classes | None = None) -> Tensor:
        """Return the sources of samples number 0 to n - 1 of a seed, (n, C, H, W) float32 on `device`.

        They are those of `sample` with the same seed and labels. `decode` returns them as images.

        Raises:
            UserError: neither the path nor the network takes a source, or the data are missing.
        """
        return self._sources(n, seed, labels).source.to(self.device)

    def condition(self, n: int, *, seed: int = 0, labels: Classes | None = None) -> Tensor:
        """Return what the network sees of the sources that `source` returns for the same arguments.

        That is the source without its noise: the visible part of a masked image, or a coarse image.
        """
        return self._sources(n, seed, labels).observation.to(self.device)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The first and the last time at which the velocity can be used, for `plan` and for time grids."""
        return velocity_interval(self.recipe)

    def labels(self, classes: Classes) -> Tensor:
        """Return classes as labels, int64 on `device`: (B,), or () for one class.

        Raises:
            UserError: the network is unconditional, or there is no such class.
        """
        if not self.classes:
            raise UserError(f"{self.folder} has no classes: leave out labels")
        return labels_of(classes, self.classes).to(self.device)

    def noise(self, n: int, *, seed: int = 0) -> Tensor:
        """Return the noise that samples number 0 to n - 1 of a seed start from, (n, C, H, W) float32 on `device`.

        On a two-sided path, samples start from `source`, and this is the noise of the path.
        """
        indices = torch.arange(whole_number("n", n, 0, MOST_IMAGES))
        return noise(whole_number("seed", seed, 0, MOST_SEED), Stream.START, indices, self.shape).to(self.device)

    def decode(self, states: Tensor) -> Tensor:
        """Return states (B, C, H, W) as images (B, C', H', W') uint8, on the device of the states."""
        return self._split.decode(states)

    def sample(self, n: int, *, seed: int = 0, labels: Classes | None = None, batch: int = 256) -> Tensor:
        """Return samples number 0 to n - 1 of a seed, by the recipe's sampler and guidance.

        They are those of `sitkit sample` with the same seed and labels: each depends on its number, not on the others.

        Args:
            n: how many.
            seed: of the noise and of random labels.
            labels: the classes, (n,) or one for all; by default as `evaluation.labels` of the recipe.
            batch: how many at once; it changes memory and speed only.

        Returns:
            Images, (n, C, H, W) uint8 on the CPU.

        Raises:
            UserError: n, seed or batch is not a whole number, there is no such class, or samples are not finite.
        """
        return self.generate(n, seed=seed, labels=labels, batch=batch).pixels

    def generate(self, n: int, *, seed: int = 0, labels: Classes | None = None, batch: int = 256) -> SampleBatch:
        """Return what `sample` does, with the labels of the samples and their cost."""
        n, seed = whole_number("n", n, 1, MOST_IMAGES), whole_number("seed", seed, 0, MOST_SEED)
        batch = whole_number("batch", batch, 1, MOST_ROWS)
        y = self._labels_of_samples(n, seed, labels)
        return generate(SampleGenerator(self.network, self.recipe, self._split, seed), n, y, batch=batch)

    def heldout(self) -> tuple[Tensor, Tensor]:
        """Return the held-out images of the run's data, (N, C, H, W) uint8, and their labels (N,).

        Raises:
            UserError: the data are missing or others than those of the run, or none are held out.
        """
        images = self.run.data(self.recipe, heldout=True).heldout
        if not len(images):
            raise UserError(f"the data of {self.folder} have no held-out images")
        return images.read(torch.arange(len(images))), images.labels

    @cached_property
    def _split(self) -> Split:
        return self.run.data(self.recipe, images=False)

    @property
    def _call(self) -> Callable[..., Tensor]:
        return with_precision(self.recipe.sampler.precision, all_channels(self.network, self.objective))

    def _sources(self, n: int, seed: int, labels: Classes | None) -> SourceBatch:
        if not (self.recipe.two_sided or self.recipe.source):
            raise UserError(f"{self.folder} has no source: samples start from `noise`")
        indices = torch.arange(whole_number("n", n, 0, MOST_IMAGES))
        seed = whole_number("seed", seed, 0, MOST_SEED)
        sources = SampleSources(self.recipe, self._split, seed)
        return sources(indices, self._labels_of_samples(len(indices), seed, labels))

    def _model(self, labels: Classes | None, guidance: float, condition: Tensor | None) -> Field:
        """Return the network as a field for labels (B,), or one for all, and further input channels (B, C, H, W)."""
        if labels is None and guidance != 1:
            raise UserError(f"guidance = {guidance} needs labels: give the classes of the samples")
        if (condition is not None) != self.recipe.conditions_on_source:
            what = "takes condition=run.condition(n)" if condition is None else "takes no condition"
            raise UserError(f"the network of {self.folder} {what}: see source.condition of its recipe")
        if labels is None and condition is None:
            return self._call
        scaled = self.recipe.model_copy(
            update={"guidance": self.recipe.guidance.model_copy(update={"scale": float(guidance)})}
        )
        y = None if labels is None else self.labels(labels)
        condition = None if condition is None else condition.to(self.device)

        def model(x: Tensor, t: Tensor) -> Tensor:
            rows = y.expand(len(x)) if y is not None and not y.ndim else y
            return conditioned_field(self._call, scaled, rows, condition, len(self.classes), self.shape[0])(x, t)

        return model

    def _labels_of_samples(self, n: int, seed: int, labels: Classes | None) -> Tensor | None:
        """Return the labels of samples, (n,) on the CPU; None if there are no classes."""
        if labels is None:
            return Labels(self.classes, self.recipe.evaluation.labels)(seed, torch.arange(n))
        y = self.labels(labels).cpu()
        y = y.expand(n) if not y.ndim else y
        if len(y) != n:
            raise UserError(f"there are {len(y)} labels for {n} samples: give one of each, or one for all")
        return y
