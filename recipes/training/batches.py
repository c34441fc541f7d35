"""What a step is made of: a function of its number and of whose part it is, so that it can be prepared ahead."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..data.images import Split
from ..experiment.auto_values import train_interval
from ..experiment.recipe import Recipe
from ..support import random_streams
from ..support.errors import UserError
from .process_group import ProcessGroup


@dataclass(frozen=True, eq=False)
class Batch:
    """A piece of a step: P samples."""

    numbers: Tensor
    """The sample numbers, (P,) int64."""
    images: Tensor
    """Which images of the training data these are, (P,) int64."""
    x: Tensor
    """States, (P, C, H, W) float32."""
    t: Tensor
    """Times, (P,) float32."""
    labels: Tensor | None
    """Their classes, (P,) int64."""
    y: Tensor | None
    """Their classes, some replaced by the null class, (P,) int64."""

    def to(self, device: torch.device) -> "Batch":
        """Return it on a device, to which it is copied without waiting for what that is at."""
        numbers, images, x, t = (_send(part, device) for part in (self.numbers, self.images, self.x, self.t))
        labels, y = (None if part is None else _send(part, device) for part in (self.labels, self.y))
        return Batch(numbers, images, x, t, labels, y)


class Batches:
    """The pieces that a process takes of each step, which together with those of the others make up its batch."""

    def __init__(self, recipe: Recipe, split: Split, group: ProcessGroup):
        pieces = recipe.compute.gradient_accumulation
        if recipe.train.batch % (group.world_size * pieces):
            raise UserError(
                f"train.batch = {recipe.train.batch} must divide by processes times compute.gradient_accumulation, "
                f"{group.world_size} x {pieces}"
            )
        self.size = recipe.train.batch // (group.world_size * pieces)
        coupling = recipe.train.coupling
        if coupling and self.size % getattr(coupling.fields, "block", 1):
            raise UserError(f"train.coupling.block must divide what a process takes at once, {self.size} images")
        self.recipe = recipe
        self.first = group.rank * pieces
        self.interval = train_interval(recipe)
        self.times = recipe.train.times.build()
        self.order = random_streams.Permutation(recipe.seed, len(split.training))
        self.data = split.training
        self.labelled = bool(split.classes)
        self.null = len(split.classes)

    def __call__(self, step: int) -> list[Batch]:
        """Return this process's pieces of step number `step` (from 1)."""
        train = self.recipe.train
        everyone = torch.arange((step - 1) * train.batch, step * train.batch)
        t = random_streams.times(
            self.recipe.seed, everyone, self.times, self.interval
        )  # some are spread over the batch
        cuts = [slice(k * self.size, (k + 1) * self.size) for k in range(self.first, self.first + self._pieces)]
        return [self._piece(everyone[cut], t[cut]) for cut in cuts]

    @property
    def _pieces(self) -> int:
        return self.recipe.compute.gradient_accumulation

    def _piece(self, numbers: Tensor, t: Tensor) -> Batch:
        seed, train = self.recipe.seed, self.recipe.train
        images = self.order(numbers)
        flips = random_streams.flips(seed, numbers, train.flip)
        x = self.data.states(images, flips, partial(random_streams.noise, seed, random_streams.Stream.LATENT, numbers))
        labels = y = None
        if self.labelled:
            labels = self.data.labels[images]
            y = random_streams.drop_labels(seed, numbers, labels, self.null, train.label_dropout)
        return Batch(numbers, images, x, t, labels, y)


def _send(value: Tensor, device: torch.device) -> Tensor:
    pinned = value.pin_memory() if device.type == "cuda" else value  # or the copy would wait
    return pinned.to(device, non_blocking=True)


def ahead(make: Callable[[int], list[Batch]], steps: range, workers: int) -> Iterator[tuple[int, list[Batch]]]:
    """Yield each step's number and pieces in order, made by so many threads ahead of time; by none, when asked for."""
    if not workers:
        for step in steps:
            yield step, make(step)
        return
    waiting: deque[tuple[int, Future[list[Batch]]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for step in steps:
            waiting.append((step, pool.submit(make, step)))
            if len(waiting) > workers:
                number, future = waiting.popleft()
                yield number, future.result()
        for number, future in waiting:
            yield number, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
