"""Drawing into a folder, by any number of processes, to go on with after any interruption."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from ..storage.files import is_occupied
from ..storage.work_partition import POLL_SECONDS, TIMEOUT, WorkPartition
from ..support.errors import UserError
from ..support.json_toml import differences
from ..support.progress import progress
from .generator import SampleBatch, SampleGenerator
from .labels import Labels
from .manifest import identity
from .sample_folder import CONTENT, SampleFolder, ShardContent

SHARD = 256
"""Samples a shard: what a kill costs at most, in each process."""


def begin(folder: Path, wanted: ShardContent, partition: WorkPartition, patience: float = TIMEOUT) -> SampleFolder:
    """Return the samples of a folder, to be drawn: those that are there, perhaps more of them, or none yet.

    Process 0 writes what they are; the others wait until it has.

    Args:
        folder: where they are, or will be.
        wanted: what is to be drawn; samples that are there keep the size of their shards.
        partition: which of the processes this is.
        patience: for how many seconds to wait for process 0.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    since = time.monotonic()
    while True:
        found = SampleFolder.open(folder) if (folder / CONTENT).exists() else None
        if found:
            _compare(found, wanted)
            if len(found) >= wanted.count:
                return found
        if partition.is_main:
            if found is None and is_occupied(folder):
                raise UserError(f"{folder} holds other files, and no samples: give another --out")
            grown = wanted if found is None else found.content.model_copy(update={"count": wanted.count})
            SampleFolder(folder, grown).write()
        elif time.monotonic() - since > patience:
            raise UserError(f"process 0 has begun nothing in {folder} for {patience:.0f} s: start all processes anew")
        else:
            time.sleep(POLL_SECONDS)


def draw_into(
    samples: SampleFolder,
    drawing: Callable[[], SampleGenerator],
    labels: Labels,
    *,
    batch: int,
    partition: WorkPartition,
    what: str,
) -> None:
    """Draw those shards of this process's partition that are missing.

    Args:
        samples: where to.
        drawing: makes what draws; called only if something is missing.
        labels: the label of each sample.
        batch: samples at once, within a shard; changes how numbers are rounded, and nothing else.
        partition: which of the processes this is.
        what: what to call this in the progress.

    Raises:
        UserError: the folder cannot be written.
    """
    mine = partition.assigned(samples.shards.indices)
    missing = samples.shards.missing(mine)
    if not missing:
        return
    draw = drawing()
    total, left = (sum(len(samples.shards.rows(shard)) for shard in part) for part in (mine, missing))
    with progress(what, total, total - left, "images", quiet=not partition.is_main) as advance:
        for shard in missing:
            pieces = []
            for numbers in torch.split(torch.tensor(samples.shards.rows(shard)), batch):
                pieces.append(draw(numbers, labels(draw.seed, numbers)))
                advance(len(numbers))
            samples.put(shard, _join(pieces))


def wait(samples: SampleFolder, partition: WorkPartition, patience: float = TIMEOUT) -> None:
    """Wait until other processes have drawn their shards.

    Raises:
        UserError: they do not.
    """
    partition.wait(lambda: len(samples.shards.missing()), f"shards of {samples.folder}", patience)


def _join(pieces: list[SampleBatch]) -> SampleBatch:
    labels = [piece.labels for piece in pieces if piece.labels is not None]
    pixels = torch.cat([piece.pixels for piece in pieces])
    return SampleBatch(pixels, torch.cat(labels) if labels else None, pieces[0].calls, pieces[0].rows)


def _compare(found: SampleFolder, wanted: ShardContent) -> None:
    """Raise a problem unless the samples that are there are the ones that are wanted."""
    facts = [
        identity(content.manifest) | {"image": list(content.image), "classes": list(content.classes)}
        for content in (found.content, wanted)
    ]
    if changed := differences(*facts):
        told = ", ".join(f"{key} ({one}, now {other})" for key, (one, other) in changed.items())
        raise UserError(f"{found.folder} holds other samples; give another --out, or undo: {told}")
