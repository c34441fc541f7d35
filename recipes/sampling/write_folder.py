"""Generate samples into a folder, with any number of processes; resumes after any interruption."""

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
from .sample_folder import CONTENT, FolderContent, SampleFolder

SHARD = 256
"""Samples per shard. A kill costs at most one shard per process."""


def open_or_create(
    folder: Path, wanted: FolderContent, partition: WorkPartition, patience: float = TIMEOUT
) -> SampleFolder:
    """Return the samples of a folder, whose shards may be missing. If there are none, or fewer, describe all of them.

    Process 0 writes `samples.json`; the others wait for it.

    Args:
        folder: an existing or a new folder.
        wanted: the samples to generate. Existing samples keep the size of their shards.
        partition: the part of the work of this process.
        patience: seconds to wait for process 0.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    since = time.monotonic()
    while True:
        found = SampleFolder.open(folder) if (folder / CONTENT).exists() else None
        if found:
            _check_same(found, wanted)
            if len(found) >= wanted.count:
                return found
        if partition.is_main:
            if found is None and is_occupied(folder):
                raise UserError(f"{folder} holds other files and no samples: give another --out")
            grown = wanted if found is None else found.content.model_copy(update={"count": wanted.count})
            SampleFolder(folder, grown).write()
        elif time.monotonic() - since > patience:
            raise UserError(f"process 0 has created no samples in {folder} for {patience:.0f} s: restart all processes")
        else:
            time.sleep(POLL_SECONDS)


def generate_missing(
    samples: SampleFolder,
    make_generator: Callable[[], SampleGenerator],
    labels: Labels,
    *,
    batch: int,
    partition: WorkPartition,
    what: str,
) -> None:
    """Generate the missing shards of this process.

    Args:
        samples: the folder.
        make_generator: returns the sample generator; called only if a shard is missing.
        labels: the rule of the labels.
        batch: samples at once, within a shard; affects rounding only.
        partition: the part of the work of this process.
        what: the title of the progress bar.

    Raises:
        UserError: the folder cannot be written.
    """
    mine = partition.assigned(samples.shards.indices)
    missing = samples.shards.missing(mine)
    if not missing:
        return
    generator = make_generator()
    total, left = (sum(len(samples.shards.rows(shard)) for shard in part) for part in (mine, missing))
    with progress(what, total, total - left, "images", quiet=not partition.is_main) as advance:
        for shard in missing:
            batches = []
            for indices in torch.split(torch.tensor(samples.shards.rows(shard)), batch):
                batches.append(generator(indices, labels(generator.seed, indices)))
                advance(len(indices))
            samples.put(shard, _join(batches))


def wait_for_shards(samples: SampleFolder, partition: WorkPartition, patience: float = TIMEOUT) -> None:
    """Wait until the other processes have generated their shards.

    Raises:
        UserError: none was finished for `patience` seconds.
    """
    partition.wait(lambda: len(samples.shards.missing()), f"shards of {samples.folder}", patience)


def _join(batches: list[SampleBatch]) -> SampleBatch:
    labels = [one.labels for one in batches if one.labels is not None]
    pixels = torch.cat([one.pixels for one in batches])
    return SampleBatch(pixels, torch.cat(labels) if labels else None, batches[0].calls, batches[0].rows)


def _check_same(found: SampleFolder, wanted: FolderContent) -> None:
    """Raise a `UserError` unless the existing samples are those to generate."""
    facts = [
        identity(content.manifest) | {"image": list(content.image), "classes": list(content.classes)}
        for content in (found.content, wanted)
    ]
    if changed := differences(*facts):
        changes = ", ".join(f"{key} ({one}, now {other})" for key, (one, other) in changed.items())
        raise UserError(f"{found.folder} holds other samples; give another --out, or undo: {changes}")
