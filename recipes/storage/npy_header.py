"""The header of an array in NumPy's npy format (`numpy.lib.format`): shape, dtype and order, checked against the size.

The header is parsed by a regular expression and never evaluated, because the file may come from anyone.
"""

import math
import re
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

import numpy as np

Shape: TypeAlias = tuple[int | None, ...]
"""An expected shape; None accepts any length."""

INTEGER, FLOAT, REAL, NUMBER = "iu", "f", "fiu", "biufc"
"""Kinds of dtypes, by NumPy's letters."""
KIND_NAMES = {
    INTEGER: "integers",
    FLOAT: "floating-point numbers",
    REAL: "real numbers",
    NUMBER: "numbers",
    "U": "text",
}
MAX_HEADER_BYTES = 10_000
"""NumPy's own limit."""


class ArrayError(ValueError):
    """The file holds no valid array, or another one than expected. The message is one line without the file's name."""


@dataclass(frozen=True)
class ArrayHeader:
    """The header of an array: its shape, dtype and order, and the byte at which its content starts."""

    shape: tuple[int, ...]
    dtype: "np.dtype[np.generic]"
    fortran: bool
    start: int

    @property
    def bytes(self) -> int:
        """The size of the content in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def check(self, name: str, kinds: str, shape: Shape | None) -> None:
        """Raise ArrayError unless the dtype is of one of the kinds and the shape is the expected one, if given."""
        fits = shape is None or (
            len(shape) == len(self.shape)
            and all(expected in (None, side) for expected, side in zip(shape, self.shape, strict=True))
        )
        if self.dtype.kind not in kinds or not fits:
            sides = "" if shape is None else f" of shape {_format_shape(shape)}"
            raise ArrayError(f"{name} is {self.dtype} {self.shape} instead of {KIND_NAMES.get(kinds, kinds)}{sides}")


_DESCR = r"""['"]descr['"]\s*:\s*['"](?P<descr{0}>[^'"\\]{{1,20}})['"]"""
_ORDER = r"""['"]fortran_order['"]\s*:\s*(?P<order{0}>True|False)"""
_SHAPE = r"""['"]shape['"]\s*:\s*\((?P<shape{0}>[^()]*)\)"""
_ITEM = rf"\s*(?:{_DESCR}|{_ORDER}|{_SHAPE})\s*"
_HEADER = re.compile(r"\s*\{" + ",".join(_ITEM.format(number) for number in range(3)) + r",?\s*\}\s*")


def read_header(stream: BinaryIO, size: int, name: str) -> ArrayHeader:
    """Read the header of an array.

    Args:
        stream: the array's bytes, from their start.
        size: how many bytes the array has in the file, its header included.
        name: the array's name in error messages.

    Raises:
        ArrayError: the header is invalid, or does not agree with the size.
    """
    start = stream.read(8)
    if start[:6] != b"\x93NUMPY" or start[6:7] not in (b"\1", b"\2", b"\3"):
        raise ArrayError(f"{name} is not an array in NumPy's format")
    digits = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(digits), "little")
    match = _HEADER.fullmatch(stream.read(length).decode("latin-1")) if length <= MAX_HEADER_BYTES else None
    found = {key[:5]: value for key, value in match.groupdict().items() if value is not None} if match else {}
    if found.keys() != {"descr", "order", "shape"}:
        raise ArrayError(f"{name} does not have the header of a plain array")
    if not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248]|c(8|16)|[SU][0-9]{1,8})", found["descr"]):
        raise ArrayError(f"{name} is of dtype '{found['descr']}', which is neither numbers nor text")
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


def _format_shape(shape: Shape) -> str:
    """Return (None, 3) as (N, 3)."""
    sides = [str(side) if side is not None else "NKLM"[place % 4] for place, side in enumerate(shape)]
    return f"({', '.join(sides)}{',' * (len(sides) == 1)})"
