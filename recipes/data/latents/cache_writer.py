"""A latent cache while it is being written, block by block, by any number of processes that share its folder.

`.progress/begun.json` says what is being written, and each finished block of images has a file beside it, named by its
number, with the block's crc32 and the images that it leaves out. The block is on the disk before that file is there.
So whatever has a mark is done, whatever has none is done again, and both writes put the same bytes in the same place:
a process may be killed at any moment, and others may go on.
"""

import hashlib
import math
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from ...storage.files import open_regular, read_regular, sha256, write_atomic
from ...storage.filesystems import fsync
from ...storage.npy_header import read_header
from ...storage.work_partition import POLL_SECONDS
from ...support.errors import UserError
from ...support.progress import progress
from ...support.schema import Section
from .cache import (
    INDEX,
    LABELS,
    MOMENTS,
    PROGRESS,
    CacheContent,
    CacheFile,
    CacheIndex,
    Count,
    SkippedImage,
)

HEADER = "begun.json"


class CacheHeader(CacheContent):
    """What is being written, and in blocks of how many images."""

    block: Count

    @property
    def bytes_a_row(self) -> int:
        """The bytes of an image's moments."""
        return math.prod(self.moments[1:]) * np.dtype(np.float16).itemsize


class BlockMarker(Section):
    """What is known of a finished block: the crc32 of its moments, the images that it leaves out, and their state."""

    crc32: int
    left_out: tuple[SkippedImage, ...]
    state: str = ""
    """Of its images (`fingerprint.state`) before they were read; marks of earlier versions have none."""


@dataclass(frozen=True)
class CacheWriter:
    """A cache that is being written in a folder.

    Args:
        folder: where it is.
        begun: what is written.
        cache_key: of images, by their numbers: a block whose images were written after it was encoded is not finished.
    """

    folder: Path
    begun: CacheHeader
    cache_key: Callable[[range], str] = lambda numbers: ""

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return -(-self.begun.count // self.begun.block)

    def numbers(self, block: int) -> range:
        """Return the numbers of a block's images."""
        first = block * self.begun.block
        return range(first, min(first + self.begun.block, self.begun.count))

    def marks(self, skip: bool, blocks: Iterable[int] | None = None) -> dict[int, BlockMarker]:
        """Return the marks of finished blocks, all or among some; with `skip`, also of those that leave images out."""
        found = {}
        for block in range(self.blocks) if blocks is None else blocks:
            try:
                mark = BlockMarker.model_validate_json(read_regular(self._mark(block)))
            except (OSError, ValidationError):
                continue
            if (skip or not mark.left_out) and mark.state in ("", self.cache_key(self.numbers(block))):
                found[block] = mark
        return found

    def write(self, block: int, moments: np.ndarray, left_out: Iterable[SkippedImage], state: str = "") -> None:
        """Write the moments of a block, (b, 2, 2C, h, w) float16, and then that it is finished, of images of a state.

        Raises:
            UserError: the folder cannot be written, as when the disk is full.
        """
        content = moments.tobytes()
        mark = BlockMarker(crc32=zlib.crc32(content), left_out=tuple(left_out), state=state)
        try:
            with (self.folder / MOMENTS).open("r+b") as stream:
                stream.seek(moments_offset(self.folder) + self.numbers(block).start * self.begun.bytes_a_row)
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            write_atomic(self._mark(block), mark.model_dump_json().encode())
        except OSError as error:
            raise self._unwritable(error) from error

    def wait(self, skip: bool, patience: float, say: Callable[[str], None]) -> dict[int, BlockMarker]:
        """Return the marks of all blocks, once they are there.

        Raises:
            UserError: for `patience` seconds none has come.
        """
        marks, since = self.marks(skip), time.monotonic()
        if len(marks) < self.blocks:
            say(f"waiting for other processes, which have {self.blocks - len(marks)} blocks left")
        while len(marks) < self.blocks:
            time.sleep(POLL_SECONDS)
            if more := self.marks(skip, sorted(set(range(self.blocks)) - marks.keys())):
                marks, since = marks | more, time.monotonic()
            elif time.monotonic() - since > patience:
                raise UserError(
                    f"{self.folder}: {self.blocks - len(marks)} blocks are left to other processes, and none was "
                    f"finished for {patience:.0f} s; once no process runs, the same command goes on"
                )
        return marks

    def finish(self, labels: np.ndarray, marks: dict[int, BlockMarker], images: str = "") -> CacheIndex:
        """Compare all blocks with their marks, and write labels (N,) int64 and index, with the images' fingerprint.

        Raises:
            UserError: a block is not what its mark says, whose mark is removed; or the folder cannot be written.
        """
        digest = hashlib.sha256()
        damaged = []
        with open_regular(self.folder / MOMENTS) as stream, progress("checking", self.blocks, unit="blocks") as advance:
            digest.update(stream.read(moments_offset(self.folder)))
            for block in range(self.blocks):
                content = stream.read(len(self.numbers(block)) * self.begun.bytes_a_row)
                digest.update(content)
                if zlib.crc32(content) != marks[block].crc32:
                    self._mark(block).unlink()
                    damaged.append(block)
                advance(1)
        if damaged:
            raise UserError(
                f"{self.folder}: {len(damaged)} blocks of {MOMENTS} were damaged since they were written; "
                "the same command encodes them anew"
            )
        left_out = tuple(one for block in range(self.blocks) for one in marks[block].left_out)
        labels = labels.copy()
        labels[[one.number for one in left_out]] = -1
        try:
            np.save(self.folder / LABELS, labels, allow_pickle=False)
            fsync(self.folder / LABELS)
            hashes = {MOMENTS: digest.hexdigest(), LABELS: sha256(self.folder / LABELS)}
            files = {
                name: CacheFile(bytes=(self.folder / name).stat().st_size, sha256=one) for name, one in hashes.items()
            }
            same = {key: getattr(self.begun, key) for key in CacheContent.model_fields}
            index = CacheIndex(**same, left_out=left_out, files=files, images=images)
            write_atomic(self.folder / INDEX, index.model_dump_json(indent=2).encode())
            fsync(self.folder / INDEX)
            fsync(self.folder)
            shutil.rmtree(self.folder / PROGRESS)
        except OSError as error:
            raise self._unwritable(error) from error
        return index

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"{self.folder} cannot be written: {error.strerror}; mend that, and the same command goes on")

    def _mark(self, block: int) -> Path:
        return self.folder / PROGRESS / f"{block:08d}.json"


def moments_offset(folder: Path) -> int:
    """Return at which byte of moments.npy the moments begin."""
    file = folder / MOMENTS
    with open_regular(file) as stream:
        return read_header(stream, file.stat().st_size, MOMENTS).start
