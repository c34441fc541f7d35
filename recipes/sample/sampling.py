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
from ..problem import Problem
from ..recipe import Recipe
from ..run import Run
from ..share import Share
from .export import export
from .folder import SHARD, begin, draw_into, wait
from .generate import Drawing, Samples, draw, load_sampled
from .labels import Labels
from .manifest import identity, manifest_of
from .pictures import label_grid, save_picture
from .shards import Content, SampleFolder


@dataclass(frozen=True, eq=False)
class Request:
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

    def drawing(self, checkpoint: Path) -> Drawing:
        """Return what draws from a checkpoint.

        Raises:
            Problem: it is damaged, or of another network.
        """
        network = load_sampled(self.recipe, self.split, checkpoint, self.device, self.average)
        return Drawing(network, self.recipe, self.split, self.seed)

    @cached_property
    def image(self) -> tuple[int, int, int]:
        """(C, H, W) of the samples."""
        state = torch.zeros(1, *self.split.training.shape, device=self.device)
        channels, height, width = self.split.decode(state).shape[1:]
        return channels, height, width

    def content(self, checkpoint: Path, count: int) -> Content:
        """Return what a folder of so many samples holds."""
        manifest = manifest_of(self.recipe, self.split, checkpoint, self.average, self.labels, self.seed, self.device)
        classes = self.split.classes
        return Content(count=count, shard=SHARD, image=self.image, classes=classes, manifest=manifest)


def to_folder(request: Request, count: int, out: Path, share: Share) -> Samples | None:
    """Draw into a folder, or go on with it, and return its first shard; None for processes that only help.

    Raises:
        Problem: there is no good checkpoint, or the folder holds something else or cannot be written.
    """
    checkpoint = request.run.latest()
    samples = begin(out, request.content(checkpoint, count), share)
    drawing = lambda: request.drawing(checkpoint)  # noqa: E731  # the network is loaded if something is missing
    draw_into(samples, drawing, request.labels, batch=request.batch, share=share, what="sampling")
    if not share.leads:
        return None
    wait(samples, share)
    return samples.get(0)


def to_array(request: Request, count: int, out: Path, share: Share) -> Samples | None:
    """Draw into an npz, by way of a hidden folder beside it, which is removed: so it, too, can be gone on with.

    It returns what `to_folder` does.

    Raises:
        Problem: there is no good checkpoint, or the file cannot be written.
    """
    content = request.content(request.run.latest(), count)
    if not (share.leads or share.of(range(-(-count // SHARD)))):
        return None  # process 0 waits for nothing of this one, and may be done with the folder before it is seen
    digest = hashlib.sha256(json.dumps([identity(content.manifest), count]).encode()).hexdigest()[:12]
    aside = out.with_name(f".{out.name}.{digest}")
    first = to_folder(request, count, aside, share)
    if first is None:
        return None
    export(SampleFolder.open(aside), out)
    for folder in out.parent.glob(f".{glob.escape(out.name)}.*"):
        shutil.rmtree(folder, ignore_errors=True)
    return first


def to_picture(request: Request, count: int, out: Path) -> Samples:
    """Draw a grid.

    Raises:
        Problem: there is no good checkpoint, or the file cannot be written.
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
        raise Problem(f"--out must end in .png or .npz, or be a folder without such an ending, got {out}")
