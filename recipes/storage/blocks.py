"""Arrays of many rows in a folder, one npz file for every block of rows.

A block is written to a temporary file and renamed, so that its file is either complete or absent, and any process may
write it. The npz files are uncompressed and named by their first row. Their crc32 are compared whenever they are read.
"""

import io
import os
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..support.errors import UserError
from .arrays import NpzReader
from .filesystems import fsync
from .npy_header import INTEGER, ArrayError, Shape

ARRAYS = "arrays"
"""The name of the array that stores the number of arrays: damage to a zip archive can hide some of them."""


@dataclass(frozen=True)
class BlockStore:
    """Blocks of rows in a folder.

    Args:
        folder: the folder of the files.
        count: the number of rows in all blocks.
        size: the number of rows in a block; the last block may have fewer.
        advice: how to make a block that is missing or damaged, for messages, such as 'run the same command to resume'.
    """

    folder: Path
    count: int
    size: int
    advice: str

    @property
    def indices(self) -> range:
        """The indices of all blocks."""
        return range(-(-self.count // self.size))

    def rows(self, block: int) -> range:
        """Return the indices of the rows of a block."""
        first = block * self.size
        return range(first, min(first + self.size, self.count))

    def missing(self, blocks: Iterable[int] | None = None) -> list[int]:
        """Return the blocks, among all or the given ones, that are absent, truncated, or of another number of rows."""
        return [block for block in (self.indices if blocks is None else blocks) if not self._is_complete(block)]

    def write(self, block: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write a block: arrays with a row for each of its rows, and arrays without dimensions.

        Raises:
            UserError: the folder cannot be written, for instance because the disk is full.
        """
        file = self.file(block)
        temporary = file.with_name(f".{file.name}.tmp")
        content = io.BytesIO()
        np.savez(content, **{**arrays, ARRAYS: np.array(len(arrays))})  # type: ignore[arg-type]  # allow_pickle is a parameter of np.savez
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content.getbuffer())
            fsync(temporary)
            os.replace(temporary, file)
        except OSError as error:
            why = f"{self.folder} cannot be written: {error.strerror}"
            raise UserError(f"{why}; fix that, then run the same command to resume") from error
        finally:
            with suppress(OSError):
                temporary.unlink()

    def read(
        self,
        block: int,
        wanted: Mapping[str, tuple[str, Shape]],
        optional: Mapping[str, tuple[str, Shape]] | None = None,
    ) -> dict[str, np.ndarray]:
        """Return some arrays of a block.

        Args:
            block: its index.
            wanted: the required arrays by name, with the kind of dtype and the shape, as `NpzReader.read` takes them;
                the first side of a shape is replaced by the number of rows.
            optional: more arrays, which are returned if they are present.

        Raises:
            UserError: the block is missing or damaged, or its arrays are of other kinds or shapes.
        """
        file, rows = self.file(block), len(self.rows(block))
        try:
            with NpzReader(file) as arrays:
                if int(arrays.read(ARRAYS, INTEGER, ())) != len(arrays.names) - 1:
                    raise ArrayError(f"of its arrays only {', '.join(arrays.names)} are present")
                more = {name: wish for name, wish in (optional or {}).items() if name in arrays.names}
                return {
                    name: arrays.read(name, kinds, (rows, *shape[1:]) if shape else ())
                    for name, (kinds, shape) in {**wanted, **more}.items()
                }
        except FileNotFoundError:
            raise UserError(
                f"{self.folder} lacks {len(self.missing())} of {len(self.indices)} files; {self.advice}"
            ) from None
        except (OSError, ArrayError) as error:
            raise UserError(f"{file} is damaged ({error}): remove it; {self.advice}") from error

    def file(self, block: int) -> Path:
        """Return the file of a block."""
        return self.folder / f"{block * self.size:08d}.npz"

    def checksum(self, block: int) -> int:
        """Return the crc32 of the names, crc32 and sizes of a block's arrays, from the table of contents of its file.

        Raises:
            UserError: the block is missing or damaged.
        """
        try:
            with NpzReader(self.file(block)) as arrays:
                return zlib.crc32(repr(arrays.checksums).encode())
        except (OSError, ArrayError) as error:
            raise UserError(f"{self.file(block)} is missing or damaged ({error}): remove it; {self.advice}") from error

    def _is_complete(self, block: int) -> bool:
        """Return whether a block has all its rows, by the headers of its arrays."""
        try:
            with NpzReader(self.file(block)) as arrays:
                shapes = [arrays.header(name).shape for name in arrays.names]
        except (OSError, ArrayError):
            return False
        return all(shape[0] == len(self.rows(block)) for shape in shapes if shape)
