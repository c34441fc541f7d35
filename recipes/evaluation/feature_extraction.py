"""Extract features of images into files, block by block, with any number of processes."""

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
from .memory import MemoryDemand, check_memory

BLOCK = 256
ROWS = FLOAT, (None, None)
"""The kind of dtype and the shape of features: one row per image."""
OF = "of"
"""The array of a block with the checksum of its images."""


def key_of(component: Component, extractor: Extractor) -> str:
    """Return the name of the features of an extractor: its kind, and a digest of its fields and weights."""
    digest = hashlib.sha256(json.dumps([dump(component), extractor.sha256]).encode()).hexdigest()
    return f"{component.kind.replace(':', '.')}-{digest[:12]}"


@dataclass(frozen=True, eq=False)
class FeatureExtraction:
    """An extractor of features, with the settings to run it.

    Args:
        component: the extractor, as in a recipe.
        extractor: the extractor that `component` builds.
        batch: images at once.
        device: where to compute.
        partition: the part of the work of this process.
        cache: the folder of cached statistics.
        load: the statistics and features that are in memory at once.
    """

    component: Component
    extractor: Extractor
    batch: int
    device: torch.device
    partition: WorkPartition
    cache: Path
    load: MemoryDemand = field(default_factory=MemoryDemand)

    def check(self, image: tuple[int, int, int]) -> None:
        """Raise a `UserError` if an extractor with `sizes` needs more memory for images (C, H, W) than there is."""
        if sizes := getattr(self.extractor, "sizes", None):
            pooled, spatial = sizes(image)
            check_memory(self.extractor.name, pooled, spatial, self.load, self.device)

    def check_features(self, found: Features) -> None:
        """Raise a `UserError` if statistics of such features need more memory than there is."""
        spatial = 0 if found.spatial is None else found.spatial.shape[1]
        check_memory(self.extractor.name, found.pooled.shape[1], spatial, self.load, self.device)

    @property
    def key(self) -> str:
        """The name of these features."""
        return key_of(self.component, self.extractor)

    def describe(self) -> dict[str, Any]:
        """Return the extractor's name, weights and fields, for a manifest."""
        return {"name": self.extractor.name, "sha256": self.extractor.sha256, "component": dump(self.component)}


def feature_blocks(folder: Path, count: int) -> BlockStore:
    """Return the files of the features of `count` images."""
    return BlockStore(folder, count, BLOCK, "run the same command again")


def extract_features(
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
    """Compute the blocks of features of this process that are missing or outdated (`missing_blocks`).

    Args:
        images: the images; one block of them is read at a time.
        extractor: computes the features.
        blocks: the files of the features.
        batch: images at once; affects rounding only.
        device: where to compute.
        partition: the part of the work of this process.
        what: the title of the progress bar.
        check: called with the first features; raises if these are too many.

    Raises:
        UserError: images cannot be read, or the folder cannot be written.
    """
    mine = partition.assigned(blocks.indices)
    todo = missing_blocks(images, blocks, mine)
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


def missing_blocks(images: ImageSource, blocks: BlockStore, some: Iterable[int] | None = None) -> list[int]:
    """Return which blocks, of all or of `some`, are missing or belong to images with other content.

    Images that can change while their features stay, such as shards of samples, have a method `crc(rows)`, the checksum
    of their content. Features of other images have a name that depends on the content.
    """
    absent = {*blocks.missing(some)}
    return [
        block
        for block in (blocks.indices if some is None else some)
        if block in absent or not _is_current(images, blocks, block)
    ]


def _is_current(images: ImageSource, blocks: BlockStore, block: int) -> bool:
    try:
        return int(blocks.read(block, {OF: (INTEGER, ())})[OF]) == _crc(images, blocks, block)
    except UserError:  # written by an earlier version
        return False


def _crc(images: ImageSource, blocks: BlockStore, block: int) -> int:
    crc = getattr(images, "crc", None)
    return 0 if crc is None else int(crc(blocks.rows(block)))


def read_blocks(blocks: BlockStore) -> Iterator[tuple[Features, int]]:
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
