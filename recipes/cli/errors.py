"""Messages of errors that a user can fix, one line each: user errors, system errors, missing memory; interrupts."""

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
"""Parts of the messages of errors that torch and its libraries raise if there is not enough memory."""


def line_of(error: BaseException, advice: str) -> str | None:
    """Return the message of an error, one line or one per key; None if it is not an error that a user can fix.

    Args:
        error: the error.
        advice: how to use less memory.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return f"out of memory: {advice}"
    if isinstance(error, OSError) and error.errno != errno.EPIPE:  # typer handles a broken pipe
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or str(error).splitlines()[0]}"
    message = str(error).lower()
    if isinstance(error, RuntimeError) and any(part in message for part in NO_MEMORY):
        return f"out of memory{' of the GPU' if 'cuda' in message else ''}: {advice}"
    return None


@contextmanager
def one_interrupt() -> Iterator[None]:
    """Let only the first SIGINT interrupt. A second one would interrupt the cleanup."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    yield


def write_any_text() -> None:
    """Let the command print names of files that are not UTF-8, with escapes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
