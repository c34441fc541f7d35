"""What not every file system can do, and what is done there instead.

Locks, waiting for the disk, and renaming folders fail on some network file systems and on object storage that is
mounted as a folder. Work goes on there, after one line about what is lost.
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
"""How file systems refuse what they do not have."""
NO_RENAMING = UNSUPPORTED | {errno.EMFILE, errno.EXDEV}
"""The same of renaming a folder: object storage would copy every file in it, and refuses if they are many."""


@cache
def warn_once(line: str) -> None:
    """Say a line, the first time."""
    print(line, file=sys.stderr)


def check_system() -> None:
    """Raise a problem on systems without what the commands need."""
    try:
        import fcntl  # noqa: F401
    except ImportError:
        raise UserError(
            f"the commands run on Linux and macOS, and this system ({sys.platform}) has no fcntl: on Windows use WSL"
        ) from None


def lock(file: IO[str], *, wait: bool = False) -> bool:
    """Lock an open file until it is closed, and return whether that worked; False if another process has locked it.

    On a file system without locks it is True: nothing keeps two processes from the same work there.

    Args:
        file: of all who are kept from working at once.
        wait: whether to wait for others.
    """
    import fcntl  # not on Windows

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        folder = Path(file.name).parent
        warn_once(f"{folder} has no locks ({error.strerror}): see to it that no two processes work there at once")
    return True


def fsync(path: Path) -> None:
    """Return when a file or folder is on the disk.

    Raises:
        OSError: it cannot be written to the disk.
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
            f"{path.parent} cannot be told to put a {what} on the disk ({error.strerror}): what was written last may "
            "be lost if the machine stops"
        )


def move_folder(draft: Path, final: Path, last: str) -> None:
    """Give a folder its name, which nothing but an empty folder has yet.

    Where folders cannot be renamed its files are moved one by one.

    Args:
        draft: the folder.
        final: its name.
        last: the file in it that is moved last: a folder without it was cut short.

    Raises:
        OSError: it cannot be moved.
    """
    try:
        os.replace(draft, final)
    except OSError as error:
        if error.errno not in NO_RENAMING:
            raise
        warn_once(
            f"{final.parent} cannot rename folders ({error.strerror}): files are moved one by one, and a folder is "
            f"damaged that is cut short meanwhile; it lacks {last}"
        )
        files = sorted(path.relative_to(draft) for path in draft.rglob("*") if not path.is_dir())
        for name in sorted(files, key=lambda name: name == Path(last)):
            (final / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(draft / name, final / name)
        shutil.rmtree(draft)


def remove_folder(folder: Path, first: str) -> None:
    """Remove a folder, never leaving one of that name with some of its files and the file `first` among them.

    Raises:
        OSError: it cannot be removed.
    """
    doomed = folder.with_suffix(".tmp")
    try:
        os.replace(folder, doomed)
    except OSError as error:
        if error.errno not in NO_RENAMING:
            raise
        (folder / first).unlink(missing_ok=True)
        doomed = folder
    shutil.rmtree(doomed)
