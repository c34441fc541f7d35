"""The micro-batches of training steps. They are a function of step and rank, so they can be prefetched."""

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
from ..runs.source_data import open_source
from ..support import random_streams
from ..support.errors import UserError
from ..support.random_streams import Stream
from .process_group import ProcessGroup


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """A micro-batch of M samples."""

    numbers: Tensor
    """The sample numbers, counted over all steps, (M,) int64."""
    images: Tensor
    """The indices of the images in the training data, (M,) int64."""
    x: Tensor
    """States, (M, C, H, W) float32."""
    t: Tensor
    """Times, (M,) float32."""
    labels: Tensor | None
    """Classes, (M,) int64."""
    y: Tensor | None
    """Classes after label dropout, which replaces some by the null class, (M,) int64."""
    source: Tensor | None = None
    """States of another data set, (M, C, H, W) float32, if the source is one."""

    def to(self, device: torch.device) -> "MicroBatch":
        """Return the micro-batch on a device. The copy does not block."""
        numbers, images, x, t = (_to_device(part, device) for part in (self.numbers, self.images, self.x, self.t))
        labels, y, source = (
            None if part is None else _to_device(part, device) for part in (self.labels, self.y, self.source)
        )
        return MicroBatch(numbers, images, x, t, labels, y, source)


class Batches:
    """The micro-batches of this process at each step. Those of all processes make up the batch of the step."""

    def __init__(self, recipe: Recipe, split: Split, group: ProcessGroup):
        self.size = micro_batch_size(recipe, group.world_size)
        coupling = recipe.train.coupling
        if coupling and self.size % getattr(coupling.fields, "block", 1):
            raise UserError(f"train.coupling.block must divide the size of a micro-batch, {self.size} images")
        self.recipe = recipe
        self.count = recipe.compute.gradient_accumulation
        self.first = group.rank * self.count
        self.interval = train_interval(recipe)
        self.times = recipe.train.times.build()
        self.order = random_streams.Permutation(recipe.seed, len(split.training))
        self.data = split.training
        self.source_data = open_source(recipe, split)
        self.source = None if self.source_data is None else self.source_data.training
        if self.source is not None:
            self.source_order = random_streams.Permutation(recipe.seed, len(self.source), Stream.SOURCE_ORDER)
        self.labelled = bool(split.classes)
        self.null = len(split.classes)

    def __call__(self, step: int) -> list[MicroBatch]:
        """Return this process's micro-batches of a step (from 1)."""
        train = self.recipe.train
        numbers = torch.arange((step - 1) * train.batch, step * train.batch)
        # Times of the whole batch, as some distributions stratify them over it.
        t = random_streams.times(self.recipe.seed, numbers, self.times, self.interval)
        cuts = [slice(k * self.size, (k + 1) * self.size) for k in range(self.first, self.first + self.count)]
        return [self._micro_batch(numbers[cut], t[cut]) for cut in cuts]

    def _micro_batch(self, numbers: Tensor, t: Tensor) -> MicroBatch:
        seed, train = self.recipe.seed, self.recipe.train
        images = self.order(numbers)
        flips = random_streams.flips(seed, numbers, train.flip)
        x = self.data.states(images, flips, partial(random_streams.noise, seed, Stream.LATENT, numbers))
        source = labels = y = None
        if self.source is not None:
            latents = partial(random_streams.noise, seed, Stream.SOURCE_LATENT, numbers)
            source = self.source.states(self.source_order(numbers), torch.zeros_like(flips), latents)
        if self.labelled:
            labels = self.data.labels[images]
            y = random_streams.drop_labels(seed, numbers, labels, self.null, train.label_dropout)
        return MicroBatch(numbers, images, x, t, labels, y, source)


def micro_batch_size(recipe: Recipe, world_size: int) -> int:
    """Return the number of images in a micro-batch.

    Raises:
        UserError: the batch cannot be split evenly.
    """
    count = recipe.compute.gradient_accumulation
    if recipe.train.batch % (world_size * count):
        raise UserError(
            f"train.batch = {recipe.train.batch} must be divisible by processes times compute.gradient_accumulation, "
            f"{world_size} x {count}"
        )
    return recipe.train.batch // (world_size * count)


def _to_device(value: Tensor, device: torch.device) -> Tensor:
    pinned = value.pin_memory() if device.type == "cuda" else value  # without pinning, the copy would block
    return pinned.to(device, non_blocking=True)


def prefetch(
    make: Callable[[int], list[MicroBatch]], steps: range, workers: int
) -> Iterator[tuple[int, list[MicroBatch]]]:
    """Yield each step and its micro-batches in order, made in advance by worker threads; with 0 workers, on demand."""
    if not workers:
        for step in steps:
            yield step, make(step)
        return
    pending: deque[tuple[int, Future[list[MicroBatch]]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for step in steps:
            pending.append((step, pool.submit(make, step)))
            if len(pending) > workers:
                ready, future = pending.popleft()
                yield ready, future.result()
        for ready, future in pending:
            yield ready, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
