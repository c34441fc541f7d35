"""Drawing samples: a network, a resolved sampler and guidance, put together."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from sitkit.objectives import Hybrid, LossCurve, Objective
from sitkit.samplers import (
    SDE,
    ClassifierFree,
    Conditional,
    Counted,
    Euler,
    Exponential,
    Field,
    Keyed,
    Mean,
    OneStep,
    Tweedie,
    grids,
    sample,
)

from ..data.images import Split
from ..experiment import slots
from ..experiment.auto_values import resolve_sampler, sampling_path, sampling_velocity, time_grid
from ..experiment.recipe import Recipe
from ..network.build import all_channels
from ..network.precision import with_precision
from ..support.errors import UserError
from ..support.progress import progress
from ..support.random_streams import Stream, noise

CURVE_IMAGES, CURVE_TIMES = 256, 25


class NonFiniteError(UserError):
    """Samples have diverged."""


@dataclass(frozen=True, eq=False)
class SampleBatch:
    """Images (N, C, H, W) uint8 with their labels (N,), None if there are no classes, and what they cost."""

    pixels: Tensor
    labels: Tensor | None
    calls: int
    """Calls of the network for one batch."""
    rows: int
    """Rows of the network for one sample: twice the calls, under guidance."""


class SampleGenerator:
    """Draws samples, which depend on the seed and on their number and label, not on what is drawn with them.

    Args:
        network: called as (x, t, y=labels), or without y if there are no classes.
        recipe: its path, objective, sampler and guidance are used.
        split: the data, for their shape and classes, and how states become pixels.
        seed: of the sampling, which is independent of the training's.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, split: Split, seed: int):
        self.network = network
        self.recipe = recipe
        self.split = split
        self.seed = seed
        self.device = next(network.parameters()).device
        call = all_channels(network, recipe.objective.build(path=recipe.path.build()))
        self.call = with_precision(recipe.sampler.precision, call)
        self.curve = measure_loss_curve(network, recipe, split) if slots.needs_loss_curve(recipe.sampler.w) else None

    def __call__(self, numbers: Tensor, labels: Tensor | None) -> SampleBatch:
        """Return the samples of these numbers, (B,) int64, and labels, (B,) int64 or None; on the CPU.

        Raises:
            NonFiniteError: they have diverged, or the sampler cannot take its steps.
        """
        counted = Counted(self.call)
        x = noise(self.seed, Stream.START, numbers, self.split.training.shape).to(self.device)
        y = None if labels is None else labels.to(self.device)
        keyed = Keyed(self.seed, numbers.to(self.device))
        try:
            x = _sample(counted, self.recipe, x, y, len(self.split.classes), keyed, self.curve)
        except ValueError as error:  # of the libraries, as at a time at which a velocity is infinite
            raise NonFiniteError(f"sampler.interval or sampler.solver: {error}") from error
        if not x.isfinite().all():
            bad = numbers[~x.isfinite().flatten(1).all(1).cpu()].tolist()
            raise NonFiniteError(
                f"{len(bad)} samples of seed {self.seed} are not finite, such as number {bad[0]}: take more steps or "
                "another solver, or keep sampler.interval from the ends"
            )
        return SampleBatch(self.split.decode(x).cpu(), labels, counted.calls, counted.rows // len(numbers))


def draw(
    drawing: SampleGenerator,
    count: int,
    labels: Tensor | None,
    *,
    batch: int = 256,
    quiet: bool = False,
) -> SampleBatch:
    """Return samples number 0 to count - 1, all in memory.

    Args:
        drawing: what draws them.
        count: how many.
        labels: (count,), or None.
        batch: how many at once.
        quiet: whether to show no progress.
    """
    pieces = []
    with progress("sampling", count, unit="images", quiet=quiet) as advance:
        for numbers in torch.split(torch.arange(count), batch):
            pieces.append(drawing(numbers, None if labels is None else labels[numbers]))
            advance(len(numbers))
    return SampleBatch(torch.cat([piece.pixels for piece in pieces]), labels, pieces[-1].calls, pieces[-1].rows)


def _sample(
    network: Counted, recipe: Recipe, x: Tensor, y: Tensor | None, null: int, keyed: Keyed, curve: LossCurve | None
) -> Tensor:
    """Return the samples that start from x."""
    path = sampling_path(recipe)
    objective = recipe.objective.build(path=recipe.path.build())
    sampler = resolve_sampler(recipe)
    model: Field = network if y is None else conditioned(network, recipe, y, null, objective, x.shape[1])
    velocity = sampling_velocity(recipe, objective.field(model))
    times = time_grid(sampler, path)
    x = x * path.sigma(times[0])
    assert sampler.solver is not None
    lasts: dict[str, OneStep] = {"euler": Euler(velocity), "tweedie": Tweedie(velocity, path)}
    if sampler.kind == "ode":
        solver = sampler.solver.build(velocity=velocity, path=path, w=None)
    else:
        w = sampler.w.build(path=path, loss_curve=curve)
        sde = SDE(velocity, path, w)
        solver = sampler.solver.build(sde=sde, velocity=velocity, path=path, w=w, model=model, noise=keyed)
        lasts["mean"] = Mean(sde)
    if isinstance(solver, Exponential):
        times = grids.through(times, velocity)  # as `plan` does
    return sample(solver, x, times, lasts.get(sampler.last))


def measure_loss_curve(network: nn.Module, recipe: Recipe, split: Split) -> LossCurve:
    """Return the error of the network's velocity, time by time, on some of the images it was trained on."""
    device = next(network.parameters()).device
    objective, path = recipe.objective.build(path=recipe.path.build()), recipe.path.build()
    index = torch.arange(min(CURVE_IMAGES, len(split.training)))
    latents = partial(noise, recipe.seed, Stream.LATENT, index)
    x = split.training.states(index, torch.zeros(len(index), dtype=torch.bool), latents).to(device)
    eps = noise(recipe.seed, Stream.CURVE, index, tuple(x.shape[1:])).to(device)
    model = all_channels(network, objective)
    labelled = partial(model, y=split.training.labels[index].to(device)) if split.classes else model
    times = torch.linspace(0.5, CURVE_TIMES - 0.5, CURVE_TIMES) / CURVE_TIMES
    return LossCurve.measure(objective.field(labelled), path, x, eps, times)


def conditioned(
    network: Callable[..., Tensor], recipe: Recipe, y: Tensor, null: int, objective: Objective, in_channels: int
) -> Field:
    """Return the network with its labels, guided if the recipe says so; never guided is the range of a variance."""
    guidance = recipe.guidance
    if guidance.scale == 1:
        return Conditional(network, y)
    everything = in_channels if isinstance(objective, Hybrid) else None
    channels = everything if guidance.channels == "all" else guidance.channels
    return ClassifierFree(network, y, null, guidance.scale, guidance.interval, channels)
