"""Files that are either whole or as they were, and known by their content."""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PIECE = 1 << 24
"""Bytes read at once."""


def open_regular(file: Path) -> BinaryIO:
    """Open a file for reading, links followed, if it is a regular one: a FIFO or a device could block without end.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(file))
    return open(descriptor, "rb")


def read_regular(file: Path) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    with open_regular(file) as stream:
        return stream.read()


def path_inside(folder: Path, name: str) -> Path:
    """Return a file of a folder by a name that stands in another file: it may come from anywhere.

    Raises:
        OSError: the name, or a link, leads out of the folder.
    """
    file = folder / name
    try:
        if file.resolve().is_relative_to(folder.resolve()):
            return file
    except (ValueError, RuntimeError) as error:  # a name with a null byte; links in a circle
        raise OSError(errno.EINVAL, str(error), str(file)) from None
    raise OSError(errno.EPERM, f"it leads out of {folder}", str(file))


def read_inside(folder: Path, name: str) -> bytes:
    """Return the content of a regular file of a folder.

    Raises:
        OSError: it cannot be opened, is not a regular file, or a link leads out of the folder.
    """
    return read_regular(path_inside(folder, name))


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder beside one, in which it is made; what is left of it at the end is removed.

    Its name is always the same, so that one which a kill has left is removed the next time.

    Raises:
        OSError: it cannot be made.
    """
    draft = folder.absolute().with_name(f".{folder.absolute().name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def is_occupied(folder: Path) -> bool:
    """Return whether there is a file of that name, or a folder with anything in it but drafts that a kill has left.

    Raises:
        OSError: it cannot be looked into.
    """
    if not folder.is_dir():
        return folder.exists()
    return any(not (one.name.startswith(".") and one.name.endswith(".tmp")) for one in folder.iterdir())


def write_atomic(file: Path, content: bytes) -> None:
    """Write a file so that it is there with all its content or as it was before."""
    draft = file.with_name(f".{file.name}.tmp")
    try:
        draft.write_bytes(content)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def sha256(file: Path, advance: Callable[[int], None] = lambda count: None) -> str:
    """Return a file's sha256, hexadecimal; `advance` is told of the bytes read."""
    digest = hashlib.sha256()
    with open_regular(file) as stream:
        while piece := stream.read(PIECE):
            digest.update(piece)
            advance(len(piece))
    return digest.hexdigest()
