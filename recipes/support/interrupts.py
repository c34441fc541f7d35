"""Being asked to stop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""From a person, a cluster, and a cluster that warns."""


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Turn the first signal to stop into a word that can be asked for; a second one acts as ever."""
    heard = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        heard = True
        for one, handler in former.items():
            signal.signal(one, handler)

    former = {number: signal.signal(number, hear) for number in STOP}
    try:
        yield lambda: heard
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
