"""Signals that ask a long command to stop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Sent by Ctrl-C, by a cluster that ends a job, and by a cluster that warns before it does."""


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a signal to stop has come. A second signal has its usual effect."""
    received = False

    def receive(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = True
        restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {number: signal.signal(number, receive) for number in STOP}
    try:
        yield lambda: received
    finally:
        restore()
