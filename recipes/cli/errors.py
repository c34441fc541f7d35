"""What stops a command, in one line: problems, errors of the system, memory that is used up, and interrupts."""

import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..support.errors import UserError

NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "bad_alloc",
    "storage size calculation overflowed",
    "integer multiplication overflow",
    "alloc_failed",
)
"""What errors of torch and of those below it say when there is no memory; the next to last of a size that none has."""


def line_of(error: BaseException, lower: str) -> str | None:
    """Return an error in one line, or several if it is of several keys; None if it is no error that a user can mend.

    Args:
        error: what was raised.
        lower: what takes less memory.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return f"out of memory: {lower}"
    if isinstance(error, OSError) and error.errno != errno.EPIPE:  # of which the command line itself knows
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or str(error).splitlines()[0]}"
    said = str(error).lower()
    if isinstance(error, RuntimeError) and any(words in said for words in NO_MEMORY):
        return f"out of memory{' of the GPU' if 'cuda' in said else ''}: {lower}"
    return None


@contextmanager
def one_interrupt() -> Iterator[None]:
    """Let the first SIGINT interrupt, and no other: it would leave behind what is being cleaned up then."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    yield


def write_any_text() -> None:
    """Let names of files that are not UTF-8 be written, in escapes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
