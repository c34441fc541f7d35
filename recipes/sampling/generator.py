"""Generate samples: a network combined with a resolved sampler and guidance."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from sitkit.objectives import LossCurve
from sitkit.samplers import Counted, Keyed

from ..data.images import Split
from ..experiment import slots
from ..experiment.recipe import Recipe
from ..network.build import all_channels
from ..network.precision import with_precision
from ..support.errors import UserError
from ..support.progress import progress
from ..support.random_streams import Stream, noise
from .solve import Start, solve
from .sources import SampleSources

CURVE_IMAGES, CURVE_TIMES = 256, 25
LINE = 160
"""The grey of the line between a source and its sample."""


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
    sources: Tensor | None = None
    """The sources as images, (N, C, H, W) uint8, if the recipe has a source; if the network sees it, as it does."""

    @property
    def with_sources(self) -> Tensor:
        """The images for an image grid: each below its source, if there is one."""
        if self.sources is None:
            return self.pixels
        return torch.cat([self.sources, torch.full_like(self.pixels[:, :, :1], LINE), self.pixels], dim=2)


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
        call = all_channels(network, recipe.build_objective())
        needs_source = recipe.two_sided or recipe.source is not None
        self.sources = SampleSources(recipe, split, seed) if needs_source else None
        self.call = with_precision(recipe.sampler.precision, call)
        self.curve = measure_loss_curve(network, recipe, split) if slots.needs_loss_curve(recipe.sampler.w) else None

    def __call__(self, indices: Tensor, labels: Tensor | None) -> SampleBatch:
        """Return the samples with these indices, (B,) int64, and labels, (B,) int64 or None, on the CPU.

        Raises:
            NonFiniteError: samples are not finite, or the sampler cannot take its steps.
        """
        counted = Counted(self.call)
        x = noise(self.seed, Stream.START, indices, self.split.training.shape).to(self.device)
        source, condition = (None, None) if self.sources is None else self.sources(indices, labels)
        shown = condition if self.recipe.conditions_on_source else source
        start = Start(x, *(None if one is None else one.to(self.device) for one in (source, condition, labels)))
        keyed = Keyed(self.seed, indices.to(self.device))
        try:
            x = solve(counted, self.recipe, start, len(self.split.classes), keyed, self.curve)
        except ValueError as error:  # raised by the libraries, for example where the velocity is infinite
            raise NonFiniteError(f"sampler.interval or sampler.solver: {error}") from error
        if not x.isfinite().all():
            bad = indices[~x.isfinite().flatten(1).all(1).cpu()].tolist()
            raise NonFiniteError(
                f"{len(bad)} samples of seed {self.seed} are not finite, for example sample {bad[0]}: use more steps, "
                "another solver, or a sampler.interval further from 0 and 1"
            )
        decode = self.split.decode
        sources = None if shown is None or self.recipe.source is None else decode(shown.to(self.device)).cpu()
        return SampleBatch(decode(x).cpu(), labels, counted.calls, counted.rows // len(indices), sources)


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
    sources = [one.sources for one in batches if one.sources is not None]
    return SampleBatch(
        torch.cat([one.pixels for one in batches]),
        labels,
        batches[-1].calls,
        batches[-1].rows,
        torch.cat(sources) if sources else None,
    )


def measure_loss_curve(network: nn.Module, recipe: Recipe, split: Split) -> LossCurve:
    """Return the mean squared error of the network's velocity as a function of time, on some training images."""
    device = next(network.parameters()).device
    objective, path = recipe.build_objective(), recipe.path.build()
    index = torch.arange(min(CURVE_IMAGES, len(split.training)))
    latents = partial(noise, recipe.seed, Stream.LATENT, index)
    x = split.training.states(index, torch.zeros(len(index), dtype=torch.bool), latents).to(device)
    eps = noise(recipe.seed, Stream.CURVE, index, tuple(x.shape[1:])).to(device)
    model = all_channels(network, objective)
    labelled = partial(model, y=split.training.labels[index].to(device)) if split.classes else model
    times = torch.linspace(0.5, CURVE_TIMES - 0.5, CURVE_TIMES) / CURVE_TIMES
    return LossCurve.measure(objective.field(labelled), path, x, eps, times)
