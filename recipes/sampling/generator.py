"""Generate samples: a network combined with a resolved sampler and guidance."""

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
    ExponentialEuler,
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
    """Samples are not finite, or the sampler cannot take its steps."""


@dataclass(frozen=True, eq=False)
class SampleBatch:
    """Images (N, C, H, W) uint8, their labels (N,) or None if there are no classes, and their cost."""

    pixels: Tensor
    labels: Tensor | None
    calls: int
    """The NFE of a batch."""
    rows: int
    """Network rows per sample: twice the NFE with guidance."""


class SampleGenerator:
    """Generates samples. Each depends on the seed, its index and its label, and not on the rest of its batch.

    Args:
        network: called as (x, t, y=labels), or without y if there are no classes.
        recipe: its path, objective, sampler and guidance are used.
        split: the data: their shape, their classes and the decoder from states to pixels.
        seed: of the sampling, independent of the training seed.
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

    def __call__(self, indices: Tensor, labels: Tensor | None) -> SampleBatch:
        """Return the samples with these indices, (B,) int64, and labels, (B,) int64 or None, on the CPU.

        Raises:
            NonFiniteError: samples are not finite, or the sampler cannot take its steps.
        """
        counted = Counted(self.call)
        x = noise(self.seed, Stream.START, indices, self.split.training.shape).to(self.device)
        y = None if labels is None else labels.to(self.device)
        keyed = Keyed(self.seed, indices.to(self.device))
        try:
            x = _solve(counted, self.recipe, x, y, len(self.split.classes), keyed, self.curve)
        except ValueError as error:  # raised by the libraries, for example where the velocity is infinite
            raise NonFiniteError(f"sampler.interval or sampler.solver: {error}") from error
        if not x.isfinite().all():
            bad = indices[~x.isfinite().flatten(1).all(1).cpu()].tolist()
            raise NonFiniteError(
                f"{len(bad)} samples of seed {self.seed} are not finite, for example sample {bad[0]}: use more steps, "
                "another solver, or a sampler.interval further from 0 and 1"
            )
        return SampleBatch(self.split.decode(x).cpu(), labels, counted.calls, counted.rows // len(indices))


def generate(
    generator: SampleGenerator,
    count: int,
    labels: Tensor | None,
    *,
    batch: int = 256,
    quiet: bool = False,
) -> SampleBatch:
    """Return samples 0 to count - 1, all in memory.

    Args:
        generator: the sample generator.
        count: the number of samples.
        labels: (count,), or None.
        batch: samples at once.
        quiet: whether to hide the progress bar.
    """
    batches = []
    with progress("sampling", count, unit="images", quiet=quiet) as advance:
        for indices in torch.split(torch.arange(count), batch):
            batches.append(generator(indices, None if labels is None else labels[indices]))
            advance(len(indices))
    return SampleBatch(torch.cat([one.pixels for one in batches]), labels, batches[-1].calls, batches[-1].rows)


def _solve(
    network: Counted, recipe: Recipe, x: Tensor, y: Tensor | None, null: int, keyed: Keyed, curve: LossCurve | None
) -> Tensor:
    """Return the states at the end of the sampler's times, from the noise x."""
    path = sampling_path(recipe)
    objective = recipe.objective.build(path=recipe.path.build())
    sampler = resolve_sampler(recipe)
    model: Field = network if y is None else guided_field(network, recipe, y, null, objective, x.shape[1])
    velocity = sampling_velocity(recipe, objective.field(model))
    times = time_grid(sampler, path)
    x = x * path.sigma(times[0])
    assert sampler.solver is not None
    last_steps: dict[str, OneStep] = {"euler": Euler(velocity), "tweedie": Tweedie(velocity, path)}
    w = None
    if sampler.kind == "ode":
        solver = sampler.solver.build(velocity=velocity, path=path, w=None)
    else:
        w = sampler.w.build(path=path, loss_curve=curve)
        sde = SDE(velocity, path, w)
        solver = sampler.solver.build(sde=sde, velocity=velocity, path=path, w=w, model=model, noise=keyed)
        last_steps["mean"] = Mean(sde)
    if isinstance(solver, Exponential | ExponentialEuler):
        times = grids.through(times, velocity, w)  # as `plan` does
    return sample(solver, x, times, last_steps.get(sampler.last))


def measure_loss_curve(network: nn.Module, recipe: Recipe, split: Split) -> LossCurve:
    """Return the mean squared error of the network's velocity as a function of time, on some training images."""
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


def guided_field(
    network: Callable[..., Tensor], recipe: Recipe, y: Tensor, null: int, objective: Objective, in_channels: int
) -> Field:
    """Return the network as a field for these labels, with the recipe's guidance. A learned variance is not guided."""
    guidance = recipe.guidance
    if guidance.scale == 1:
        return Conditional(network, y)
    state_channels = in_channels if isinstance(objective, Hybrid) else None
    channels = state_channels if guidance.channels == "all" else guidance.channels
    return ClassifierFree(network, y, null, guidance.scale, guidance.interval, channels)
