"""Reading regular files safely, writing files atomically, and sha256 of files."""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..support.errors import UserError

CHUNK_BYTES = 1 << 24
"""How many bytes are read at once."""


def open_regular(file: Path) -> BinaryIO:
    """Open a regular file for reading, following links. A FIFO or a device is refused, since it could block forever.

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
    """Return the path of a file in a folder, for a name that was read from another file and is not trusted.

    Raises:
        OSError: the name, or a link, points outside the folder.
    """
    file = folder / name
    try:
        if file.resolve().is_relative_to(folder.resolve()):
            return file
    except (ValueError, RuntimeError) as error:  # a name with a null byte; links in a circle
        raise OSError(errno.EINVAL, str(error), str(file)) from None
    raise OSError(errno.EPERM, f"it points outside {folder}", str(file))


def read_inside(folder: Path, name: str) -> bytes:
    """Return the content of a regular file of a folder.

    Raises:
        OSError: it cannot be opened, is not a regular file, or a link points outside the folder.
    """
    return read_regular(path_inside(folder, name))


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Create a temporary folder beside `folder`, in which its content is prepared; remove it at the end.

    Its name depends on `folder` alone, so that a temporary folder left by a killed process is removed the next time.

    Raises:
        OSError: it cannot be created.
    """
    temporary = folder.absolute().with_name(f".{folder.absolute().name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_occupied(folder: Path) -> bool:
    """Return whether a path is a file, or a folder that holds more than temporary files of killed processes.

    Raises:
        OSError: the folder cannot be listed.
    """
    if not folder.is_dir():
        return folder.exists()
    return any(not (one.name.startswith(".") and one.name.endswith(".tmp")) for one in folder.iterdir())


def write_atomic(file: Path, content: bytes) -> None:
    """Write a file atomically: after an interruption it has either all of its new content or its old one."""
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files of a folder, by name, each atomically.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        for name, content in contents.items():
            write_atomic(folder / name, content)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error


def sha256(file: Path, advance: Callable[[int], None] = lambda count: None) -> str:
    """Return the sha256 of a file, hexadecimal; `advance` is called with the number of bytes read."""
    digest = hashlib.sha256()
    with open_regular(file) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()
