"""Reading arrays from npz and npy files of any origin.

The header is compared with the size of the file before anything is allocated, read or mapped. Nothing in a file is
evaluated: arrays hold numbers or text, never Python objects. Npz files are zip archives, stored or deflated.
"""

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from .files import open_regular
from .npy_header import NUMBER, ArrayError, ArrayHeader, Shape, read_header

MAX_DEFLATE_RATIO = 1032
"""How many bytes one deflated byte can expand to."""
CHUNK_BYTES = 1 << 24
"""How many bytes are read at once."""


class NpzReader:
    """Reads the arrays of an npz file by name. A context manager.

    Args:
        file: a regular file.

    Raises:
        OSError: the file cannot be opened, or is not a regular file.
        ArrayError: it is not a zip archive, or is damaged.
    """

    def __init__(self, file: Path):
        self.file = file
        self._stream = open_regular(file)
        try:
            with _array_errors():
                self._archive = zipfile.ZipFile(self._stream)
                members = self._archive.infolist()
                self._members = {one.filename.removesuffix(".npy"): one for one in members}
                if len(self._members) < len(members):
                    raise ArrayError("it has two arrays of one name")
                for one in members:  # compares the entry of the table of contents with the header beside the content
                    self._archive.open(one).close()
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._archive.close()
        self._stream.close()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arrays, in the order of the file."""
        return tuple(self._members)

    @property
    def checksums(self) -> tuple[tuple[str, int, int], ...]:
        """Name, crc32 and size of each array, npy header included, from the table of contents."""
        return tuple((name, one.CRC, one.file_size) for name, one in self._members.items())

    def header(self, name: str) -> ArrayHeader:
        """Return the header of an array, after it has been compared with the array's size."""
        with _array_errors(), self._open(name) as (stream, size):
            return read_header(stream, size, name)

    def read(self, name: str, kinds: str = NUMBER, shape: Shape | None = None) -> np.ndarray:
        """Return an array in the machine's byte order, after its checksum has been compared.

        Raises:
            ArrayError: there is no such array, it is damaged, too large for the memory, or of another kind or shape.
        """
        with _array_errors(), self._open(name) as (stream, size):
            return _read(stream, size, name, kinds, shape)

    def map(self, name: str, kinds: str = NUMBER, shape: Shape | None = None) -> np.ndarray:
        """Return an array mapped into memory, without comparing its checksum; a compressed one is read instead."""
        header, member = self.header(name), self._members[name]
        header.check(name, kinds, shape)
        if member.compress_type != zipfile.ZIP_STORED or not header.bytes:
            return self.read(name, kinds, shape)
        with _array_errors():
            self._stream.seek(member.header_offset + 26)
            lengths = struct.unpack("<HH", self._stream.read(4))  # of the name and of the extra field
            return _map(self.file, header, member.header_offset + 30 + sum(lengths))

    def text(self, name: str) -> str:
        """Return the text in an array without dimensions."""
        found = self.read(name, "U", ())
        with _array_errors():
            return str(found)

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[BinaryIO, int]]:
        """Open an array: yield its stream and its size in bytes, which is possible for this file."""
        if name not in self._members:
            raise ArrayError(f"it has no {name}; it has: {', '.join(self._members) or 'nothing'}")
        member = self._members[name]
        packed, size = member.compress_size, member.file_size
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArrayError(f"{name} is encrypted, or compressed by another method than deflate")
        most = packed if member.compress_type == zipfile.ZIP_STORED else MAX_DEFLATE_RATIO * (packed + 1)
        if size > most or member.header_offset + packed > os.fstat(self._stream.fileno()).st_size:
            raise ArrayError(f"{name} has fewer bytes than its entry says")
        with self._archive.open(member) as stream:
            yield stream, size  # type: ignore[misc]  # only read and readinto are used


def read_npy(file: Path, kinds: str = NUMBER, shape: Shape | None = None) -> np.ndarray:
    """Return the array of an npy file, in the machine's byte order.

    Raises:
        OSError: the file cannot be opened, or is not a regular file.
        ArrayError: it holds no array, or one of another kind or shape.
    """
    with open_regular(file) as stream, _array_errors():
        return _read(stream, os.fstat(stream.fileno()).st_size, "it", kinds, shape)


def map_npy(file: Path, kinds: str = NUMBER, shape: Shape | None = None) -> np.ndarray:
    """Return the array of an npy file mapped into memory; errors are those of `read_npy`."""
    with open_regular(file) as stream, _array_errors():
        header = read_header(stream, os.fstat(stream.fileno()).st_size, "it")
        header.check("it", kinds, shape)
        return _map(file, header, 0) if header.bytes else np.empty(header.shape, header.dtype)


def _read(stream: BinaryIO, size: int, name: str, kinds: str, shape: Shape | None) -> np.ndarray:
    header = read_header(stream, size, name)
    header.check(name, kinds, shape)
    found = np.empty(header.shape, header.dtype, order="F" if header.fortran else "C")
    content = found.reshape(-1, order="A").view(np.uint8).data if header.bytes else memoryview(b"")
    at = 0
    while chunk := stream.read(CHUNK_BYTES):  # zipfile compares the checksum at the end of the stream
        content[at : at + len(chunk)] = chunk
        at += len(chunk)
    if at != header.bytes:
        raise ArrayError(f"{name} ends after {at} of {header.bytes} bytes")
    return found.astype(found.dtype.newbyteorder("="), copy=False)


def _map(file: Path, header: ArrayHeader, start: int) -> np.ndarray:
    return np.memmap(file, header.dtype, "r", start + header.start, header.shape, "F" if header.fortran else "C")


@contextmanager
def _array_errors() -> Iterator[None]:
    """Convert the exceptions of damaged zip archives and deflated data to ArrayError."""
    try:
        yield
    except ArrayError:
        raise
    except MemoryError as error:
        raise ArrayError("there is not enough memory for it") from error
    except (ValueError, EOFError, RuntimeError, OverflowError, struct.error, zipfile.BadZipFile, zlib.error) as error:
        raise ArrayError(f"it is damaged: {error}") from error
