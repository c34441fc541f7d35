"""Arrays of many rows in a folder, a file for every block of rows.

A block is written aside and renamed, so that its file is whole or not there, and may be made by any process. The files
are npz, uncompressed, named by the number of their first row; their crc32 are checked whenever one is read.
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
from .arrays import INTEGER, ArrayError, NpzReader, Shape
from .filesystems import fsync

ARRAYS = "arrays"
"""The array that says how many others there are: a zip file with a bit changed may seem to hold fewer."""


@dataclass(frozen=True)
class BlockStore:
    """Rows in a folder.

    Args:
        folder: where the files are.
        count: how many rows there are in all.
        size: how many rows a block has; the last may have fewer.
        advice: what to do about a block that is not there or damaged, such as 'the same command goes on'.
    """

    folder: Path
    count: int
    size: int
    advice: str

    @property
    def indices(self) -> range:
        """The numbers of all blocks."""
        return range(-(-self.count // self.size))

    def rows(self, block: int) -> range:
        """Return the numbers of a block's rows."""
        first = block * self.size
        return range(first, min(first + self.size, self.count))

    def missing(self, blocks: Iterable[int] | None = None) -> list[int]:
        """Return which blocks, of all or of some, are not there, cut short, or of another number of rows."""
        return [block for block in (self.indices if blocks is None else blocks) if not self._is_whole(block)]

    def write(self, block: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write a block: arrays of its rows, and arrays without dimensions.

        Raises:
            UserError: the folder cannot be written, as when the disk is full.
        """
        file = self.file(block)
        draft = file.with_name(f".{file.name}.tmp")
        content = io.BytesIO()
        whole = {**arrays, ARRAYS: np.array(len(arrays))}
        np.savez(content, **whole)  # type: ignore[arg-type]  # of a flag that np.savez has beside the arrays
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(content.getbuffer())
            fsync(draft)
            os.replace(draft, file)
        except OSError as error:
            why = f"{self.folder} cannot be written: {error.strerror}"
            raise UserError(f"{why}; mend that, and the same command goes on") from error
        finally:
            with suppress(OSError):
                draft.unlink()

    def read(
        self,
        block: int,
        wanted: Mapping[str, tuple[str, Shape]],
        optional: Mapping[str, tuple[str, Shape]] | None = None,
    ) -> dict[str, np.ndarray]:
        """Return some arrays of a block.

        Args:
            block: its number.
            wanted: the arrays by name, with their kind of dtype and their shape, as `arrays.Npz` takes them; the first
                side of a shape is the number of rows, whatever is said.
            optional: more arrays, which need not be there.

        Raises:
            UserError: it is not there, or damaged, or its arrays are of other kinds or shapes.
        """
        file, rows = self.file(block), len(self.rows(block))
        try:
            with NpzReader(file) as arrays:
                if int(arrays.read(ARRAYS, INTEGER, ())) != len(arrays.names) - 1:
                    raise ArrayError(f"of its arrays there are only {', '.join(arrays.names)}")
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
        """Return a number that stands for a block's arrays: the crc32 of theirs, by the table of contents of its file.

        Raises:
            UserError: it is not there, or damaged.
        """
        try:
            with NpzReader(self.file(block)) as arrays:
                return zlib.crc32(repr(arrays.checksums).encode())
        except (OSError, ArrayError) as error:
            raise UserError(f"{self.file(block)} is missing or damaged ({error}): remove it; {self.advice}") from error

    def _is_whole(self, block: int) -> bool:
        """Return whether a block is there with all its rows, by the tables of contents of its file and its arrays."""
        try:
            with NpzReader(self.file(block)) as arrays:
                shapes = [arrays.header(name).shape for name in arrays.names]
        except (OSError, ArrayError):
            return False
        return all(shape[0] == len(self.rows(block)) for shape in shapes if shape)
