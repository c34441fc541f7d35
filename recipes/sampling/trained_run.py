"""A trained run as components of the libraries: its network, path, objective and velocity."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sitkit.interpolants import Interpolant
from sitkit.objectives import Objective
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
from .generator import SampleBatch, SampleGenerator, generate, guided_field
from .labels import Labels

Classes = Tensor | np.ndarray | Sequence[int | str] | int | str
"""Classes of samples: labels (B,) of integers, class names, or one label or name for all samples."""


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
    def path(self) -> Interpolant:
        """The path that the network was trained on."""
        path: Interpolant = self.recipe.path.build()
        return path

    @cached_property
    def objective(self) -> Objective:
        """The objective that the network was trained with."""
        objective: Objective = self.recipe.objective.build(path=self.path)
        return objective

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of a state: of pixels, or of latents."""
        return self._split.training.shape

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by label; none if the network is unconditional."""
        return tuple(self._split.classes)

    def velocity(self, labels: Classes | None = None, *, guidance: float = 1.0) -> Field:
        """Return the velocity that the network stands for, along `path`, for any solver of `sitkit.samplers`.

        Args:
            labels: the classes; None for the unconditional velocity. Labels (B,) fit states (B, C, H, W) only.
            guidance: the scale of classifier-free guidance; 1 is none. Its interval and channels are the recipe's.

        Returns:
            (x_t (B, C, H, W), t (B,)) -> (B, C, H, W) on `device`.

        Raises:
            UserError: there is no such class, or guidance without labels.
        """
        if labels is None:
            if guidance != 1:
                raise UserError(f"guidance = {guidance} needs labels: give the classes of the samples")
            return self.objective.field(self._call)
        scaled = self.recipe.model_copy(
            update={"guidance": self.recipe.guidance.model_copy(update={"scale": float(guidance)})}
        )
        y = self.labels(labels)

        def model(x: Tensor, t: Tensor) -> Tensor:
            rows = y.expand(len(x)) if not y.ndim else y
            return guided_field(self._call, scaled, rows, len(self.classes), self.objective, self.shape[0])(x, t)

        return self.objective.field(model)

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
        listed: Any = classes.tolist() if isinstance(classes, Tensor | np.ndarray) else classes
        several = isinstance(listed, Iterable) and not isinstance(listed, str)
        found = [self._label(one) for one in listed] if several else self._label(listed)
        return torch.tensor(found, dtype=torch.int64, device=self.device)

    def noise(self, n: int, *, seed: int = 0) -> Tensor:
        """Return the noise that samples number 0 to n - 1 of a seed start from, (n, C, H, W) float32 on `device`."""
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
        if labels is None:
            y = Labels(self.classes, self.recipe.evaluation.labels)(seed, torch.arange(n))
        else:
            y = self.labels(labels).cpu()
            y = y.expand(n) if not y.ndim else y
            if len(y) != n:
                raise UserError(f"there are {len(y)} labels for {n} samples: give one of each, or one for all")
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

    def _label(self, one: object) -> int:
        names = self.classes
        if isinstance(one, str):
            return int(Labels(names, named=(one,)).chosen[0])
        if not isinstance(one, Integral) or isinstance(one, bool):
            raise UserError(f"labels are (B,) integers, class names, or one for all samples, got {one!r}")
        label = int(one)
        if not 0 <= label < len(names):
            raise UserError(f"label {label} is not between 0 and {len(names) - 1}")
        return label
