"""Features of images, block by block in files, by any number of processes."""

import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..arrays import FLOAT, WHOLE
from ..blocks import Blocks
from ..components import Component, dump
from ..features import Extractor, Features
from ..progress import progress
from ..share import Share
from .sources import Pictures

BLOCK = 256
ROWS = FLOAT, (None, None)
"""The kind of dtype and the shape of features: a row an image."""


def key_of(component: Component, extractor: Extractor) -> str:
    """Return a name for the features of an extractor, another one if they are others."""
    digest = hashlib.sha256(json.dumps([dump(component), extractor.sha256]).encode()).hexdigest()
    return f"{component.kind.replace(':', '.')}-{digest[:12]}"


def blocks_of(folder: Path, count: int) -> Blocks:
    """Return the files of the features of so many images."""
    return Blocks(folder, count, BLOCK, "the same command makes it")


def extract(
    images: Pictures, extractor: Extractor, blocks: Blocks, *, batch: int, device: torch.device, share: Share, what: str
) -> None:
    """Compute those blocks of features of this process's share that are missing.

    Args:
        images: what to look at; of each block, only the images are read that are in it.
        extractor: what makes features of them.
        blocks: where features go.
        batch: images at once; changes how numbers are rounded, and nothing else.
        device: where to compute.
        share: which of the processes this is.
        what: what to call this in the progress.

    Raises:
        Problem: images cannot be read, or the folder cannot be written.
    """
    mine = share.of(blocks.all)
    missing = blocks.missing(mine)
    if not missing:
        return
    total, left = (sum(len(blocks.rows(block)) for block in part) for part in (mine, missing))
    with progress(what, total, total - left, "images", quiet=not share.leads) as advance:
        for block in missing:
            pixels = images.read(torch.tensor(blocks.rows(block)))
            found = []
            for part in torch.split(pixels, batch):
                found.append(extractor(part.to(device)))
                advance(len(part))
            blocks.put(block, _arrays(found) | {"crc": np.array(zlib.crc32(pixels.numpy().tobytes()))})


def stored(blocks: Blocks) -> Iterator[tuple[Features, int]]:
    """Yield the features of every block, in order, and the crc32 of its images' pixels.

    Raises:
        Problem: a block is missing or damaged.
    """
    for block in blocks.all:
        arrays = blocks.get(block, {"pooled": ROWS, "crc": (WHOLE, ())}, {"spatial": ROWS, "probs": ROWS})
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
