"""How idle OpenMP threads wait. OpenMP reads the environment once, as torch loads it, so this comes before torch.

An idle thread spins for a while, and then sleeps. On a quiet machine spinning saves the cost of waking up. On a busy
machine it takes a processor from the threads that it waits for: libgomp spins 300,000 times by default, and a training
step of a small network then takes up to 20 times as long. `docs/benchmarks/load.md` has the measurements.
"""

import os
import statistics
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path

WAIT_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Variables with which a user sets how threads wait: of OpenMP, of GNU's and of LLVM's or Intel's library."""
QUIET: dict[str, str] = {}
"""Torch's defaults: with fewer spins a training step of a small network takes up to 1.4 times as long."""
BUSY = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "300"}
"""GNU's libgomp reads GOMP_SPINCOUNT; OpenMP libraries of LLVM and Intel read OMP_WAIT_POLICY."""


def choose_wait_policy(environment: MutableMapping[str, str]) -> None:
    """Set how idle threads wait, for this process and those that it starts, by what the machine does now.

    A user's own setting wins. The number of threads is not changed: results depend on it in their last bits, and a
    run must resume to the bit whatever else the machine does.
    """
    if not any(name in environment for name in WAIT_SETTINGS):
        environment.update(wait_settings(thread_count(environment), other_threads(), os.cpu_count() or 1))


def wait_settings(threads: int, others: int, processors: int) -> dict[str, str]:
    """Return the variables to set where threads of this process and others share the processors of a machine."""
    return BUSY if threads + others > processors else QUIET


def thread_count(environment: Mapping[str, str]) -> int:
    """Return how many threads torch will use: as many as the user has set, or one for each core that it may use."""
    value = environment.get("OMP_NUM_THREADS", "")
    if value.isdecimal():
        return int(value)
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return len({_siblings(number) for number in os.sched_getaffinity(0)})


def _siblings(number: int) -> str:
    """Return the processors that are on the same core as a processor, as text; its own number if that is unknown."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list").read_text()
    except (OSError, ValueError):
        return str(number)


def other_threads(loads: Path = Path("/proc/loadavg"), samples: int = 5, pause: float = 0.002) -> int:
    """Return how many other threads of the machine are running or wait for a processor, the median of some samples.

    It is 0 where the system does not report it, as some sandboxes do not.
    """
    running = []
    try:
        for _ in range(samples):
            time.sleep(pause)
            running.append(int(loads.read_text().split()[3].partition("/")[0]) - 1)  # this one is among them
    except (OSError, ValueError, IndexError):
        return 0
    return max(0, round(statistics.median(running)))
