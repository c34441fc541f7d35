"""Writes a latent cache block by block, from any number of processes that share its folder.

`.progress/begun.json` is the header: what is being written. Each finished block of images has a marker file beside it,
named by the block's index, with the crc32 of the block and the images that were skipped. The block is flushed to the
disk before its marker is written. A block with a marker is therefore finished, and a block without one is written
again, with the same bytes at the same place. Any process may be killed at any moment, and others can resume.
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
    """The content of a cache that is being written, and the number of images in a block."""

    block: Count

    @property
    def row_bytes(self) -> int:
        """The size in bytes of the moments of one image."""
        return math.prod(self.moments[1:]) * np.dtype(np.float16).itemsize


class BlockMarker(Section):
    """The marker of a finished block: the crc32 of its moments, its skipped images, and its cache key."""

    crc32: int
    left_out: tuple[SkippedImage, ...]
    """The skipped images."""
    state: str = ""
    """The cache key of the block's images before they were read; empty in markers of earlier versions."""


@dataclass(frozen=True)
class CacheWriter:
    """Writes the blocks of a cache, and its labels and index when all blocks are finished.

    Args:
        folder: the folder of the cache.
        header: what is being written.
        cache_key: returns the cache key of the images of the given rows. A block whose images were changed after it was
            encoded counts as unfinished.
    """

    folder: Path
    header: CacheHeader
    cache_key: Callable[[range], str] = lambda rows: ""

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return -(-self.header.count // self.header.block)

    def rows(self, block: int) -> range:
        """Return the indices of the images of a block."""
        first = block * self.header.block
        return range(first, min(first + self.header.block, self.header.count))

    def markers(self, skip: bool, blocks: Iterable[int] | None = None) -> dict[int, BlockMarker]:
        """Return the markers of the finished blocks, among all or the given ones.

        Blocks with skipped images count as finished only if `skip` is true.
        """
        found = {}
        for block in range(self.blocks) if blocks is None else blocks:
            try:
                marker = BlockMarker.model_validate_json(read_regular(self._marker_file(block)))
            except (OSError, ValidationError):
                continue
            if (skip or not marker.left_out) and marker.state in ("", self.cache_key(self.rows(block))):
                found[block] = marker
        return found

    def write(self, block: int, moments: np.ndarray, skipped: Iterable[SkippedImage], cache_key: str = "") -> None:
        """Write the moments of a block, (b, 2, 2C, h, w) float16, and then its marker.

        Raises:
            UserError: the folder cannot be written, for instance because the disk is full.
        """
        content = moments.tobytes()
        marker = BlockMarker(crc32=zlib.crc32(content), left_out=tuple(skipped), state=cache_key)
        try:
            with (self.folder / MOMENTS).open("r+b") as stream:
                stream.seek(moments_offset(self.folder) + self.rows(block).start * self.header.row_bytes)
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            write_atomic(self._marker_file(block), marker.model_dump_json().encode())
        except OSError as error:
            raise self._write_error(error) from error

    def wait(self, skip: bool, timeout: float, say: Callable[[str], None]) -> dict[int, BlockMarker]:
        """Wait until all blocks are finished, and return their markers.

        Raises:
            UserError: no block was finished within the timeout, in seconds.
        """
        markers, since = self.markers(skip), time.monotonic()
        if len(markers) < self.blocks:
            say(f"waiting for other processes to finish {self.blocks - len(markers)} blocks")
        while len(markers) < self.blocks:
            time.sleep(POLL_SECONDS)
            if more := self.markers(skip, sorted(set(range(self.blocks)) - markers.keys())):
                markers, since = markers | more, time.monotonic()
            elif time.monotonic() - since > timeout:
                raise UserError(
                    f"{self.folder}: {self.blocks - len(markers)} blocks are assigned to other processes, and none was "
                    f"finished for {timeout:.0f} s; when no process is running, run the same command to resume"
                )
        return markers

    def finish(self, labels: np.ndarray, markers: dict[int, BlockMarker], images: str = "") -> CacheIndex:
        """Compare all blocks with their markers, then write the labels and the index.

        Args:
            labels: (N,) int64, the labels of all images; those of skipped images are replaced by -1.
            markers: the markers of all blocks.
            images: the fingerprint of the images, for the index.

        Raises:
            UserError: a block does not agree with its marker, which is then removed; or the folder cannot be written.
        """
        digest = hashlib.sha256()
        damaged = []
        with open_regular(self.folder / MOMENTS) as stream, progress("checking", self.blocks, unit="blocks") as advance:
            digest.update(stream.read(moments_offset(self.folder)))
            for block in range(self.blocks):
                content = stream.read(len(self.rows(block)) * self.header.row_bytes)
                digest.update(content)
                if zlib.crc32(content) != markers[block].crc32:
                    self._marker_file(block).unlink()
                    damaged.append(block)
                advance(1)
        if damaged:
            raise UserError(
                f"{self.folder}: {len(damaged)} blocks of {MOMENTS} were damaged after they were written; "
                "run the same command to encode them again"
            )
        skipped = tuple(one for block in range(self.blocks) for one in markers[block].left_out)
        labels = labels.copy()
        labels[[one.number for one in skipped]] = -1
        try:
            np.save(self.folder / LABELS, labels, allow_pickle=False)
            fsync(self.folder / LABELS)
            hashes = {MOMENTS: digest.hexdigest(), LABELS: sha256(self.folder / LABELS)}
            files = {
                name: CacheFile(bytes=(self.folder / name).stat().st_size, sha256=one) for name, one in hashes.items()
            }
            content_fields = {key: getattr(self.header, key) for key in CacheContent.model_fields}
            index = CacheIndex(**content_fields, left_out=skipped, files=files, images=images)
            write_atomic(self.folder / INDEX, index.model_dump_json(indent=2).encode())
            fsync(self.folder / INDEX)
            fsync(self.folder)
            shutil.rmtree(self.folder / PROGRESS)
        except OSError as error:
            raise self._write_error(error) from error
        return index

    def _write_error(self, error: OSError) -> UserError:
        reason = f"{self.folder} cannot be written: {error.strerror}"
        return UserError(f"{reason}; fix that, then run the same command to resume")

    def _marker_file(self, block: int) -> Path:
        return self.folder / PROGRESS / f"{block:08d}.json"


def moments_offset(folder: Path) -> int:
    """Return the byte of moments.npy at which the moments start."""
    file = folder / MOMENTS
    with open_regular(file) as stream:
        return read_header(stream, file.stat().st_size, MOMENTS).start
