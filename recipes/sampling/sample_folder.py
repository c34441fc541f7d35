"""A folder of samples.

- `samples.json` describes the samples (`FolderContent`). It is written first.
- `shards/00000000.npz`, ... hold the samples: `pixels` (n, C, H, W) uint8, `labels` (n,) int64 if there are classes,
  and their cost: `calls`, the NFE of a batch, and `rows`, the network rows per sample.
"""

import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError
from torch import Tensor

from ..storage.blocks import BlockStore
from ..storage.files import read_inside, write_atomic
from ..storage.filesystems import fsync
from ..storage.npy_header import INTEGER, Shape
from ..support.errors import UserError
from ..support.schema import Section
from .generator import SampleBatch

CONTENT, SHARDS = "samples.json", "shards"
Count = Annotated[int, Field(ge=1, le=10**9)]


class FolderContent(Section):
    """The content of `samples.json`."""

    format: Literal[1] = 1
    count: Count
    shard: Count
    """Samples per shard."""
    image: tuple[Count, Count, Count]
    """(C, H, W) of the pixels."""
    classes: tuple[str, ...]
    manifest: dict[str, Any]
    """Everything that the samples depend on (`manifest_of`)."""


@dataclass(frozen=True, eq=False)
class SampleFolder:
    """Samples in a folder, by index. A shard is read when one of its samples is."""

    folder: Path
    content: FolderContent

    @classmethod
    def open(cls, folder: Path) -> "SampleFolder":
        """Return the samples in a folder.

        Raises:
            UserError: there are none, or `samples.json` is not valid.
        """
        try:
            return cls(folder, FolderContent.model_validate_json(read_inside(folder, CONTENT)))
        except FileNotFoundError:
            raise UserError(
                f"there are no samples in {folder}: `sitkit sample DIR --out {folder}` generates some"
            ) from None
        except OSError as error:
            raise UserError(f"{folder / CONTENT} cannot be read: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(
                f"{folder / CONTENT} does not describe samples ({where}: {first['msg']}): generate them again"
            ) from error

    def write(self) -> None:
        """Write `samples.json`.

        Raises:
            UserError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self.folder / CONTENT, self.content.model_dump_json(indent=2).encode())
            fsync(self.folder)
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written: {error.strerror}") from error

    def __len__(self) -> int:
        return self.content.count

    @property
    def shards(self) -> BlockStore:
        """The files of the shards."""
        advice = "run the same `sitkit sample` again"
        return BlockStore(self.folder / SHARDS, self.content.count, self.content.shard, advice)

    def check(self) -> None:
        """Raise a `UserError` unless all shards exist."""
        if left := len(self.shards.missing()):
            raise UserError(f"{self.folder} lacks {left} of {len(self.shards.indices)} shards: {self.shards.advice}")

    def put(self, shard: int, samples: SampleBatch) -> None:
        """Write a shard.

        Raises:
            UserError: the folder cannot be written, as when the disk is full.
        """
        arrays = {"pixels": samples.pixels.numpy(), "calls": np.array(samples.calls), "rows": np.array(samples.rows)}
        if samples.labels is not None:
            arrays["labels"] = samples.labels.numpy()
        self.shards.write(shard, arrays)

    def get(self, shard: int) -> SampleBatch:
        """Return the samples of a shard.

        Raises:
            UserError: it is missing or damaged, or its images have another shape.
        """
        wanted = {"pixels": (INTEGER, (None, *self.content.image)), "calls": (INTEGER, ()), "rows": (INTEGER, ())}
        arrays = self.shards.read(shard, wanted | self._labels)
        if arrays["pixels"].dtype != np.uint8:
            raise UserError(f"{self.shards.file(shard)} has pixels of {arrays['pixels'].dtype}, not uint8: remove it")
        pixels = torch.from_numpy(arrays["pixels"])
        return SampleBatch(pixels, self._checked(shard, arrays), int(arrays["calls"]), int(arrays["rows"]))

    def read(self, indices: Tensor, /) -> Tensor:
        """Return the samples with these indices, (B,) int64, as (B, C, H, W) uint8.

        Raises:
            UserError: a shard is missing or damaged.
        """
        pixels = torch.empty(len(indices), *self.content.image, dtype=torch.uint8)
        shards = indices // self.content.shard
        for shard in torch.unique(shards).tolist():
            here = shards == shard
            pixels[here] = self.get(shard).pixels[indices[here] - shard * self.content.shard]
        return pixels

    def crc(self, indices: range) -> int:
        """Return a checksum of the shards of a range of samples.

        Raises:
            UserError: a shard is missing or damaged.
        """
        first, last = indices.start // self.content.shard, (indices.stop - 1) // self.content.shard
        return zlib.crc32(repr([self.shards.checksum(shard) for shard in range(first, last + 1)]).encode())

    @cached_property
    def labels(self) -> Tensor | None:
        """The label of each sample, (N,) int64; None if there are no classes."""
        if not self.content.classes:
            return None
        found = [self._checked(shard, self.shards.read(shard, self._labels)) for shard in self.shards.indices]
        return torch.cat([labels for labels in found if labels is not None])

    @property
    def _labels(self) -> dict[str, tuple[str, Shape]]:
        """The array of labels that a shard must have if there are classes."""
        return {"labels": (INTEGER, (None,))} if self.content.classes else {}

    def _checked(self, shard: int, arrays: dict[str, np.ndarray]) -> Tensor | None:
        """Return the labels of a shard, (n,) int64, and check that each is the index of a class."""
        if "labels" not in arrays:
            return None
        labels = arrays["labels"].astype(np.int64)
        if labels.min() < 0 or labels.max() >= len(self.content.classes):
            raise UserError(f"{self.shards.file(shard)} has labels that are not indices of its classes: remove it")
        return torch.from_numpy(labels)
