"""Features of images, block by block in files, by any number of processes."""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..experiment.components import Component, dump
from ..features import Extractor, Features
from ..storage.blocks import BlockStore
from ..storage.npy_header import FLOAT, INTEGER
from ..storage.work_partition import WorkPartition
from ..support.errors import UserError
from ..support.progress import progress
from .image_sources import ImageSource
from .memory import MemoryDemand
from .memory import check as check_memory

BLOCK = 256
ROWS = FLOAT, (None, None)
"""The kind of dtype and the shape of features: a row an image."""
OF = "of"
"""The array of a block that stands for the content of its images."""


def key_of(component: Component, extractor: Extractor) -> str:
    """Return a name for the features of an extractor, another one if they are others."""
    digest = hashlib.sha256(json.dumps([dump(component), extractor.sha256]).encode()).hexdigest()
    return f"{component.kind.replace(':', '.')}-{digest[:12]}"


@dataclass(frozen=True, eq=False)
class FeatureExtraction:
    """How images become features.

    Args:
        component: the extractor, as a recipe has it.
        extractor: what it is built to.
        batch: images at once.
        device: where to compute.
        partition: which of the processes this is.
        cache: a folder for statistics.
        load: what is held in memory at a time.
    """

    component: Component
    extractor: Extractor
    batch: int
    device: torch.device
    partition: WorkPartition
    cache: Path
    load: MemoryDemand = field(default_factory=MemoryDemand)

    def check(self, image: tuple[int, int, int]) -> None:
        """Raise a problem if there is no memory for statistics of images (C, H, W), as far as the extractor tells."""
        if sizes := getattr(self.extractor, "sizes", None):
            pooled, spatial = sizes(image)
            check_memory(self.extractor.name, pooled, spatial, self.load, self.device)

    def check_features(self, found: Features) -> None:
        """Raise a problem if there is no memory for statistics of such features."""
        spatial = 0 if found.spatial is None else found.spatial.shape[1]
        check_memory(self.extractor.name, found.pooled.shape[1], spatial, self.load, self.device)

    @property
    def key(self) -> str:
        """A name for these features."""
        return key_of(self.component, self.extractor)

    def describe(self) -> dict[str, Any]:
        """Return which features they are, for a manifest."""
        return {"name": self.extractor.name, "sha256": self.extractor.sha256, "component": dump(self.component)}


def blocks_of(folder: Path, count: int) -> BlockStore:
    """Return the files of the features of so many images."""
    return BlockStore(folder, count, BLOCK, "the same command makes it")


def extract(
    images: ImageSource,
    extractor: Extractor,
    blocks: BlockStore,
    *,
    batch: int,
    device: torch.device,
    partition: WorkPartition,
    what: str,
    check: Callable[[Features], None] = lambda found: None,
) -> None:
    """Compute those blocks of features of this process's partition that are missing, or of other images (`missing`).

    Args:
        images: what to look at; of each block, only the images are read that are in it.
        extractor: what makes features of them.
        blocks: where features go.
        batch: images at once; changes how numbers are rounded, and nothing else.
        device: where to compute.
        partition: which of the processes this is.
        what: what to call this in the progress.
        check: called with the first features, it raises a problem if these are too many.

    Raises:
        UserError: images cannot be read, or the folder cannot be written.
    """
    mine = partition.assigned(blocks.indices)
    todo = missing(images, blocks, mine)
    if not todo:
        return
    total, left = (sum(len(blocks.rows(block)) for block in part) for part in (mine, todo))
    with progress(what, total, total - left, "images", quiet=not partition.is_main) as advance:
        for block in todo:
            pixels = images.read(torch.tensor(blocks.rows(block)))
            found = []
            for part in torch.split(pixels, batch):
                found.append(extractor(part.to(device)))
                if block == todo[0] and len(found) == 1:
                    check(found[0])
                advance(len(part))
            crc = np.array(zlib.crc32(pixels.numpy().tobytes()))
            blocks.write(block, _arrays(found) | {"crc": crc, OF: np.array(_crc(images, blocks, block))})


def missing(images: ImageSource, blocks: BlockStore, some: Iterable[int] | None = None) -> list[int]:
    """Return which blocks, of all or of some, are not there, or are of images that had other content.

    Images that can be exchanged under features, such as the shards of samples, have a method `crc(rows)` that stands
    for their content; the features of others lie under a name that does.
    """
    absent = {*blocks.missing(some)}
    return [
        block
        for block in (blocks.indices if some is None else some)
        if block in absent or not _current(images, blocks, block)
    ]


def _current(images: ImageSource, blocks: BlockStore, block: int) -> bool:
    try:
        return int(blocks.read(block, {OF: (INTEGER, ())})[OF]) == _crc(images, blocks, block)
    except UserError:  # of an earlier version
        return False


def _crc(images: ImageSource, blocks: BlockStore, block: int) -> int:
    crc = getattr(images, "crc", None)
    return 0 if crc is None else int(crc(blocks.rows(block)))


def stored(blocks: BlockStore) -> Iterator[tuple[Features, int]]:
    """Yield the features of every block, in order, and the crc32 of its images' pixels.

    Raises:
        UserError: a block is missing or damaged.
    """
    for block in blocks.indices:
        arrays = blocks.read(block, {"pooled": ROWS, "crc": (INTEGER, ())}, {"spatial": ROWS, "probs": ROWS})
        crc = int(arrays.pop("crc")) & 0xFFFFFFFF
        yield Features(**{name: torch.from_numpy(array) for name, array in arrays.items()}), crc


def _arrays(parts: list[Features]) -> dict[str, np.ndarray]:
    columns: dict[str, list[Tensor | None]] = {
        "pooled": [part.pooled for part in parts],
        "spatial": [part.spatial for part in parts],
        "probs": [part.probs for part in parts],
    }
    whole = {name: [one for one in column if one is not None] for name, column in columns.items()}
    return {name: torch.cat(column).float().cpu().numpy() for name, column in whole.items() if column}
