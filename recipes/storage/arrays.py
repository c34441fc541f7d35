"""Arrays in npz and npy files, which may come from anyone.

What a header says is checked against the file's size before anything is allocated, read or mapped, and nothing in a
file is evaluated: arrays are numbers or text, never Python objects. The formats are NumPy's (`numpy.lib.format`) and
zip, stored or deflated.
"""

import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self, TypeAlias

import numpy as np

from .files import open_regular

Shape: TypeAlias = tuple[int | None, ...]
"""A shape that is wanted; None is any length."""

INTEGER, FLOAT, REAL, NUMBER = "iu", "f", "fiu", "biufc"
"""Kinds of dtypes, by NumPy's letters."""
WORDS = {INTEGER: "integers", FLOAT: "floating-point numbers", REAL: "real numbers", NUMBER: "numbers", "U": "text"}
LONGEST_HEADER = 10_000
"""Bytes; NumPy's own limit."""
LARGEST_RATIO = 1032
"""Bytes that one deflated byte makes, at most."""
PIECE = 1 << 24
"""Bytes read at once."""


class ArrayError(ValueError):
    """A file that holds no such array: what was found, in one line without the file's name."""


@dataclass(frozen=True)
class ArrayHeader:
    """The header of an array: its shape, dtype and order, and the byte at which its content starts."""

    shape: tuple[int, ...]
    dtype: "np.dtype[np.generic]"
    fortran: bool
    start: int

    @property
    def bytes(self) -> int:
        """The bytes of the content."""
        return math.prod(self.shape) * self.dtype.itemsize

    def check(self, name: str, kinds: str, shape: Shape | None) -> None:
        """Raise ArrayError unless the array is of one of the kinds of dtypes, and of that shape if one is given."""
        fits = shape is None or (
            len(shape) == len(self.shape)
            and all(side in (None, own) for side, own in zip(shape, self.shape, strict=True))
        )
        if self.dtype.kind not in kinds or not fits:
            sides = "" if shape is None else f" of shape {_written(shape)}"
            raise ArrayError(f"{name} is {self.dtype} {self.shape} instead of {WORDS.get(kinds, kinds)}{sides}")


class NpzReader:
    """The arrays of an npz file, by name; a context manager.

    Args:
        file: a regular file.

    Raises:
        OSError: the file cannot be opened, or is not a regular one.
        ArrayError: it is no zip file, or damaged.
    """

    def __init__(self, file: Path):
        self.file = file
        self._stream = open_regular(file)
        try:
            with _damage():
                self._archive = zipfile.ZipFile(self._stream)
                members = self._archive.infolist()
                self._members = {one.filename.removesuffix(".npy"): one for one in members}
                if len(self._members) < len(members):
                    raise ArrayError("it has two arrays of one name")
                for one in members:  # what the table of contents says of it must be what stands there
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
        """The names of the arrays, in their order."""
        return tuple(self._members)

    @property
    def checksums(self) -> tuple[tuple[str, int, int], ...]:
        """Name, crc32 and number of bytes of each array, headers included, by the table of contents."""
        return tuple((name, one.CRC, one.file_size) for name, one in self._members.items())

    def header(self, name: str) -> ArrayHeader:
        """Return the header of an array, of which the shape and dtype agree with the bytes that there are."""
        with _damage(), self._open(name) as (stream, size):
            return read_header(stream, size, name)

    def read(self, name: str, kinds: str = NUMBER, shape: Shape | None = None) -> np.ndarray:
        """Return an array, in the machine's byte order; its checksum is compared.

        Raises:
            ArrayError: there is none, it is damaged, too large for the memory, or of another kind or shape.
        """
        with _damage(), self._open(name) as (stream, size):
            return _read(stream, size, name, kinds, shape)

    def map(self, name: str, kinds: str = NUMBER, shape: Shape | None = None) -> np.ndarray:
        """Return an array as `read` does, but mapped into memory, unread and unchecked, if it is not compressed."""
        header, member = self.header(name), self._members[name]
        header.check(name, kinds, shape)
        if member.compress_type != zipfile.ZIP_STORED or not header.bytes:
            return self.read(name, kinds, shape)
        with _damage():
            self._stream.seek(member.header_offset + 26)
            lengths = struct.unpack("<HH", self._stream.read(4))  # of the name and of the extra field
            return _map(self.file, header, member.header_offset + 30 + sum(lengths))

    def text(self, name: str) -> str:
        """Return an array without dimensions that holds text."""
        found = self.read(name, "U", ())
        with _damage():
            return str(found)

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[BinaryIO, int]]:
        """Give the bytes of an array and their number, which the file can hold."""
        if name not in self._members:
            raise ArrayError(f"it has no {name}; it has: {', '.join(self._members) or 'nothing'}")
        member = self._members[name]
        packed, size = member.compress_size, member.file_size
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArrayError(f"{name} is encrypted, or compressed in another way than by deflate")
        most = packed if member.compress_type == zipfile.ZIP_STORED else LARGEST_RATIO * packed + LARGEST_RATIO
        if size > most or member.header_offset + packed > os.fstat(self._stream.fileno()).st_size:
            raise ArrayError(f"{name} has fewer bytes than its entry says")
        with self._archive.open(member) as stream:
            yield stream, size  # type: ignore[misc]  # read and readinto are all that is used


def read_npy(file: Path, kinds: str = NUMBER, shape: Shape | None = None) -> np.ndarray:
    """Return the array of an npy file, in the machine's byte order.

    Raises:
        OSError: the file cannot be opened, or is not a regular one.
        ArrayError: it holds no array, or one of another kind or shape.
    """
    with open_regular(file) as stream, _damage():
        return _read(stream, os.fstat(stream.fileno()).st_size, "it", kinds, shape)


def map_npy(file: Path, kinds: str = NUMBER, shape: Shape | None = None) -> np.ndarray:
    """Return the array of an npy file as `read_npy` does, but mapped into memory and unread."""
    with open_regular(file) as stream, _damage():
        header = read_header(stream, os.fstat(stream.fileno()).st_size, "it")
        header.check("it", kinds, shape)
        return _map(file, header, 0) if header.bytes else np.empty(header.shape, header.dtype)


_DESCR = r"""['"]descr['"]\s*:\s*['"](?P<descr{0}>[^'"\\]{{1,20}})['"]"""
_ORDER = r"""['"]fortran_order['"]\s*:\s*(?P<order{0}>True|False)"""
_SHAPE = r"""['"]shape['"]\s*:\s*\((?P<shape{0}>[^()]*)\)"""
_ITEM = rf"\s*(?:{_DESCR}|{_ORDER}|{_SHAPE})\s*"
_HEADER = re.compile(r"\s*\{" + ",".join(_ITEM.format(number) for number in range(3)) + r",?\s*\}\s*")


def read_header(stream: BinaryIO, size: int, name: str) -> ArrayHeader:
    """Return the header at the start of an array of so many bytes.

    Raises:
        ArrayError: it is no header, or does not agree with the number of bytes.
    """
    start = stream.read(8)
    if start[:6] != b"\x93NUMPY" or start[6:7] not in (b"\1", b"\2", b"\3"):
        raise ArrayError(f"{name} is no array of NumPy's")
    digits = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(digits), "little")
    match = _HEADER.fullmatch(stream.read(length).decode("latin-1")) if length <= LONGEST_HEADER else None
    found = {key[:5]: value for key, value in match.groupdict().items() if value is not None} if match else {}
    if found.keys() != {"descr", "order", "shape"}:
        raise ArrayError(f"{name} has a header that is not one of a plain array")
    if not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248]|c(8|16)|[SU][0-9]{1,8})", found["descr"]):
        raise ArrayError(f"{name} is of dtype '{found['descr']}', neither numbers nor text")
    sides = (
        [side.strip().removesuffix("L") for side in found["shape"].removesuffix(",").split(",")]
        if found["shape"].strip()
        else []
    )
    if len(sides) > 32 or not all(re.fullmatch(r"[0-9]{1,18}", side) for side in sides):
        raise ArrayError(f"{name} has the shape ({found['shape'][:100]})")
    shape = tuple(map(int, sides))
    header = ArrayHeader(shape, np.dtype(found["descr"]), found["order"] == "True", 8 + digits + length)
    if math.prod(side or 1 for side in shape) >= 1 << 60 or header.start + header.bytes != size:
        raise ArrayError(f"{name} is {header.dtype} {shape} by its header, and has {size - header.start} bytes")
    return header


def _read(stream: BinaryIO, size: int, name: str, kinds: str, shape: Shape | None) -> np.ndarray:
    header = read_header(stream, size, name)
    header.check(name, kinds, shape)
    found = np.empty(header.shape, header.dtype, order="F" if header.fortran else "C")
    content = found.reshape(-1, order="A").view(np.uint8).data if header.bytes else memoryview(b"")
    at = 0
    while piece := stream.read(PIECE):  # to the end, where a zip's checksum is compared
        content[at : at + len(piece)] = piece
        at += len(piece)
    if at != header.bytes:
        raise ArrayError(f"{name} ends after {at} of {header.bytes} bytes")
    return found.astype(found.dtype.newbyteorder("="), copy=False)


def _map(file: Path, header: ArrayHeader, start: int) -> np.ndarray:
    return np.memmap(file, header.dtype, "r", start + header.start, header.shape, "F" if header.fortran else "C")


@contextmanager
def _damage() -> Iterator[None]:
    """Turn what zip files and deflated bytes raise when they are damaged into ArrayError."""
    try:
        yield
    except ArrayError:
        raise
    except MemoryError as error:
        raise ArrayError("there is not enough memory for it") from error
    except (ValueError, EOFError, RuntimeError, OverflowError, struct.error, zipfile.BadZipFile, zlib.error) as error:
        raise ArrayError(f"it is damaged: {error}") from error


def _written(shape: Shape) -> str:
    """Return (None, 3) as (N, 3)."""
    sides = [str(side) if side is not None else "NKLM"[place % 4] for place, side in enumerate(shape)]
    return f"({', '.join(sides)}{',' * (len(sides) == 1)})"
