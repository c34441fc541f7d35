"""What `sitkit sample` does: from a run to samples in a folder, an array or a picture."""

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
from .generator import SampleBatch, SampleGenerator, draw
from .image_grid import label_grid, save_picture
from .labels import Labels
from .manifest import identity, manifest_of
from .sample_folder import SampleFolder, ShardContent
from .write_folder import SHARD, begin, draw_into, wait


@dataclass(frozen=True, eq=False)
class SampleRequest:
    """What is to be drawn of a run.

    Args:
        run: the run, of which the newest good checkpoint is used.
        recipe: its recipe, with the sampler and guidance that are wanted.
        split: its data.
        labels: of the samples.
        seed: of the sampling.
        batch: samples at once.
        average: which average of the weights.
        device: where.
    """

    run: Run
    recipe: Recipe
    split: Split
    labels: Labels
    seed: int
    batch: int
    average: str
    device: torch.device

    def drawing(self, checkpoint: Path) -> SampleGenerator:
        """Return what draws from a checkpoint.

        Raises:
            UserError: it is damaged, or of another network.
        """
        network = load_for_sampling(self.recipe, self.split, checkpoint, self.device, self.average)
        return SampleGenerator(network, self.recipe, self.split, self.seed)

    @cached_property
    def image(self) -> tuple[int, int, int]:
        """(C, H, W) of the samples."""
        state = torch.zeros(1, *self.split.training.shape, device=self.device)
        channels, height, width = self.split.decode(state).shape[1:]
        return channels, height, width

    def content(self, checkpoint: Path, count: int) -> ShardContent:
        """Return what a folder of so many samples holds."""
        manifest = manifest_of(self.recipe, self.split, checkpoint, self.average, self.labels, self.seed, self.device)
        classes = self.split.classes
        return ShardContent(count=count, shard=SHARD, image=self.image, classes=classes, manifest=manifest)


def to_folder(request: SampleRequest, count: int, out: Path, partition: WorkPartition) -> SampleBatch | None:
    """Draw into a folder, or go on with it, and return its first shard; None for processes that only help.

    Raises:
        UserError: there is no good checkpoint, or the folder holds something else or cannot be written.
    """
    checkpoint = request.run.latest()
    samples = begin(out, request.content(checkpoint, count), partition)
    drawing = lambda: request.drawing(checkpoint)  # noqa: E731  # the network is loaded if something is missing
    draw_into(samples, drawing, request.labels, batch=request.batch, partition=partition, what="sampling")
    if not partition.is_main:
        return None
    wait(samples, partition)
    return samples.get(0)


def to_array(request: SampleRequest, count: int, out: Path, partition: WorkPartition) -> SampleBatch | None:
    """Draw into an npz, by way of a hidden folder beside it, which is removed: so it, too, can be gone on with.

    It returns what `to_folder` does.

    Raises:
        UserError: there is no good checkpoint, or the file cannot be written.
    """
    content = request.content(request.run.latest(), count)
    if not (partition.is_main or partition.assigned(range(-(-count // SHARD)))):
        return None  # process 0 waits for nothing of this one, and may be done with the folder before it is seen
    digest = hashlib.sha256(json.dumps([identity(content.manifest), count]).encode()).hexdigest()[:12]
    aside = out.with_name(f".{out.name}.{digest}")
    first = to_folder(request, count, aside, partition)
    if first is None:
        return None
    export(SampleFolder.open(aside), out)
    for folder in out.parent.glob(f".{glob.escape(out.name)}.*"):
        shutil.rmtree(folder, ignore_errors=True)
    return first


def to_picture(request: SampleRequest, count: int, out: Path) -> SampleBatch:
    """Draw a grid.

    Raises:
        UserError: there is no good checkpoint, or the file cannot be written.
    """
    drawn = draw(
        request.drawing(request.run.latest()),
        count,
        request.labels(request.seed, torch.arange(count)),
        batch=request.batch,
    )
    save_picture(label_grid(drawn.pixels, drawn.labels, request.split.classes), out)
    return drawn


def check_out(out: Path) -> None:
    """Raise a problem unless samples can become that."""
    if out.suffix not in (".png", ".npz", "") and not out.is_dir():
        raise UserError(f"--out must end in .png or .npz, or be a folder without such an ending, got {out}")
