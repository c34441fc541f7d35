"""What `sitkit sample` does: generate samples of a run, as a folder, an npz or an image grid."""

import glob
import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from ..data.images import Split
from ..experiment.recipe import Recipe
from ..network.build import load_for_sampling
from ..runs.run import Run
from ..storage.work_partition import WorkPartition
from ..support.errors import UserError
from .export import export
from .generator import SampleBatch, SampleGenerator, generate
from .image_grid import label_grid, save_image
from .labels import Labels
from .manifest import identity, manifest_of
from .sample_folder import FolderContent, SampleFolder
from .write_folder import SHARD, generate_missing, open_or_create, wait_for_shards


@dataclass(frozen=True, eq=False)
class SampleRequest:
    """The samples to generate from a run.

    Args:
        run: the run. Its newest complete checkpoint is used.
        recipe: its recipe, with the sampler and guidance to use.
        split: its data.
        labels: the rule of the labels.
        seed: of the sampling.
        batch: samples at once.
        average: the name of the EMA weights.
        device: where to compute.
    """

    run: Run
    recipe: Recipe
    split: Split
    labels: Labels
    seed: int
    batch: int
    average: str
    device: torch.device

    def generator(self, checkpoint: Path) -> SampleGenerator:
        """Return the sample generator of a checkpoint.

        Raises:
            UserError: the checkpoint is damaged, or does not fit the network.
        """
        network = load_for_sampling(self.recipe, self.split, checkpoint, self.device, self.average)
        return SampleGenerator(network, self.recipe, self.split, self.seed)

    @cached_property
    def image(self) -> tuple[int, int, int]:
        """(C, H, W) of the samples."""
        state = torch.zeros(1, *self.split.training.shape, device=self.device)
        channels, height, width = self.split.decode(state).shape[1:]
        return channels, height, width

    def content(self, checkpoint: Path, count: int) -> FolderContent:
        """Return the content of a folder of `count` samples."""
        manifest = manifest_of(self.recipe, self.split, checkpoint, self.average, self.labels, self.seed, self.device)
        classes = self.split.classes
        return FolderContent(count=count, shard=SHARD, image=self.image, classes=classes, manifest=manifest)


def sample_to_folder(request: SampleRequest, count: int, out: Path, partition: WorkPartition) -> SampleBatch | None:
    """Generate samples into a folder, or resume, and return the first shard; None except in process 0.

    Raises:
        UserError: there is no complete checkpoint, or the folder holds something else or cannot be written.
    """
    checkpoint = request.run.latest()
    samples = open_or_create(out, request.content(checkpoint, count), partition)
    generator = lambda: request.generator(checkpoint)  # noqa: E731  # loads the network only if a shard is missing
    generate_missing(samples, generator, request.labels, batch=request.batch, partition=partition, what="sampling")
    if not partition.is_main:
        return None
    wait_for_shards(samples, partition)
    return samples.get(0)


def sample_to_npz(request: SampleRequest, count: int, out: Path, partition: WorkPartition) -> SampleBatch | None:
    """Generate samples into an npz, and return what `sample_to_folder` does.

    Until the npz is complete, the samples are in a hidden folder beside it, so that this can resume.

    Raises:
        UserError: there is no complete checkpoint, or the file cannot be written.
    """
    content = request.content(request.run.latest(), count)
    if not (partition.is_main or partition.assigned(range(-(-count // SHARD)))):
        return None  # process 0 does not wait for this process, and may already have removed the folder
    digest = hashlib.sha256(json.dumps([identity(content.manifest), count]).encode()).hexdigest()[:12]
    aside = out.with_name(f".{out.name}.{digest}")
    first = sample_to_folder(request, count, aside, partition)
    if first is None:
        return None
    export(SampleFolder.open(aside), out)
    for folder in out.parent.glob(f".{glob.escape(out.name)}.*"):
        shutil.rmtree(folder, ignore_errors=True)
    return first


def sample_to_grid(request: SampleRequest, count: int, out: Path) -> SampleBatch:
    """Generate samples into an image grid.

    Raises:
        UserError: there is no complete checkpoint, or the file cannot be written.
    """
    samples = generate(
        request.generator(request.run.latest()),
        count,
        request.labels(request.seed, torch.arange(count)),
        batch=request.batch,
    )
    save_image(label_grid(samples.with_sources, samples.labels, request.split.classes), out)
    return samples


def check_output_path(out: Path) -> None:
    """Raise a `UserError` unless samples can be written to such a path."""
    if out.suffix not in (".png", ".npz", "") and not out.is_dir():
        raise UserError(f"--out must end in .png or .npz, or be a folder without a suffix, got {out}")
