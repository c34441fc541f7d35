"""Locks, fsync and renaming of folders, with fallbacks for file systems that lack them.

These operations fail on some network file systems and on object storage that is mounted as a folder. A warning is
printed there, once, and the work continues without them.
"""

import errno
import os
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import IO

from ..support.errors import UserError

UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EBADF})
"""Error numbers of operations that a file system does not support."""
NO_RENAMING = UNSUPPORTED | {errno.EMFILE, errno.EXDEV}
"""The same for renaming a folder: object storage would copy each file in it, and refuses if there are many."""


@cache
def warn_once(line: str) -> None:
    """Print a line to standard error, the first time that it is given."""
    print(line, file=sys.stderr)


def check_system() -> None:
    """Raise UserError on operating systems that lack what the commands need."""
    try:
        import fcntl  # noqa: F401
    except ImportError:
        raise UserError(
            f"the commands run on Linux and macOS, and this system ({sys.platform}) has no fcntl: on Windows use WSL"
        ) from None


def lock(file: IO[str], *, wait: bool = False) -> bool:
    """Lock an open file until it is closed, and return whether that worked; False if another process has locked it.

    On a file system without locks it prints a warning and returns True.

    Args:
        file: the file that all processes which exclude each other lock.
        wait: whether to wait until no other process holds the lock.
    """
    import fcntl  # not on Windows

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        folder = Path(file.name).parent
        warn_once(f"{folder} has no locks ({error.strerror}): make sure that no two processes work there at once")
    return True


def fsync(path: Path) -> None:
    """Flush a file or folder to the disk.

    Raises:
        OSError: it cannot be flushed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        what = "folder" if path.is_dir() else "file"
        warn_once(
            f"{path.parent} cannot flush a {what} to the disk ({error.strerror}): what was written last may be lost if "
            "the machine stops"
        )


def move_folder(source: Path, target: Path, last: str) -> None:
    """Rename a folder to a path where there is nothing, or an empty folder.

    Where folders cannot be renamed, its files are moved one by one.

    Args:
        source: the folder.
        target: its new path.
        last: the file in it that is moved last: a folder without this file is incomplete.

    Raises:
        OSError: it cannot be moved.
    """
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno not in NO_RENAMING:
            raise
        warn_once(
            f"{target.parent} cannot rename folders ({error.strerror}): files are moved one by one, and an "
            f"interruption leaves an incomplete folder without {last}"
        )
        files = sorted(path.relative_to(source) for path in source.rglob("*") if not path.is_dir())
        for name in sorted(files, key=lambda name: name == Path(last)):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(source / name, target / name)
        shutil.rmtree(source)


def remove_folder(folder: Path, first: str) -> None:
    """Remove a folder so that an interruption leaves it complete, without the file `first`, or under another name.

    Raises:
        OSError: it cannot be removed.
    """
    removed = folder.with_suffix(".tmp")
    try:
        os.replace(folder, removed)
    except OSError as error:
        if error.errno not in NO_RENAMING:
            raise
        (folder / first).unlink(missing_ok=True)
        removed = folder
    shutil.rmtree(removed)
