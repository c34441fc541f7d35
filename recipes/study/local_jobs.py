"""Work in processes of this machine: so many commands at once, none before those that it needs."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..support.interrupts import interrupts

LOOK_EVERY = 0.05
PATIENCE = 60.0
"""Seconds in which a command that is told to stop may write what it has."""


@dataclass(frozen=True)
class Job:
    """A command by key, where its output goes, which job it needs, and how much work it is, in any unit.

    One that does what several others would, and spares them their start, names them: they are done if it fails.
    """

    key: str
    words: Sequence[str]
    log: Path
    needs: str | None
    work: float
    others: "tuple[Job, ...]" = ()


@dataclass(frozen=True)
class Ended:
    """A job that has ended: why it failed, if it did."""

    job: Job
    failure: str | None


def run_all(jobs: Sequence[Job], at_once: int, tell: Callable[[Ended], None]) -> None:
    """Run jobs, so many at once and in their order, but for those that wait; what needs a failed one fails as well.

    Each process has one of the machine's GPUs, taken in turn, and as many threads as the machine has cores divided by
    how many are at once, unless the user has set a number of threads. If this process is told to stop, so are they.

    Args:
        jobs: what to do; what one needs must stand before it, or is done already.
        at_once: how many processes.
        tell: is told of each that ended, in that order.

    Raises:
        KeyboardInterrupt: this process was told to stop; all that it started has ended.
    """
    waiting = list(jobs)
    open_keys = {job.key for job in jobs}
    failures: dict[str, str] = {}
    running: list[tuple[Job, subprocess.Popen[bytes]]] = []
    seats: dict[str, int] = {}

    def end(job: Job, failure: str | None) -> None:
        open_keys.discard(job.key)
        if failure is not None:
            failures[job.key] = failure
        tell(Ended(job, failure))

    with ExitStack() as stack:
        stack.callback(_stop, running)
        interrupted = stack.enter_context(interrupts())
        while waiting or running:
            if interrupted():
                raise KeyboardInterrupt
            for job, process in [pair for pair in running if pair[1].poll() is not None]:
                running.remove((job, process))
                del seats[job.key]
                failure = _failure(process.returncode, job.log)
                if failure is not None and job.others:
                    waiting[:0] = job.others
                else:
                    end(job, failure)
            for job in list(waiting):
                if job.needs in failures:
                    waiting.remove(job)
                    for one in job.others or (job,):
                        end(one, f"not tried, for {job.needs} failed")
            ready = [job for job in waiting if job.needs not in open_keys]
            for job in ready[: at_once - len(running)]:
                waiting.remove(job)
                seats[job.key] = min(set(range(at_once)) - set(seats.values()))
                running.append((job, _start(job, at_once, seats[job.key])))
            if running:
                time.sleep(LOOK_EVERY)


def threads(at_once: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that divide the cores among so many processes: none if the user has set a number."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    if any(name in environment for name in names):
        return {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return dict.fromkeys(names, str(max(1, cores // at_once)))


def gpu(seat: int) -> dict[str, str]:
    """Return the variable that gives a process one GPU, by its number among those at once; nothing if there is none."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [*map(str, range(torch.cuda.device_count()))] if visible is None else [*filter(None, visible.split(","))]
    return {"CUDA_VISIBLE_DEVICES": names[seat % len(names)]} if names else {}


def _start(job: Job, at_once: int, seat: int) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own: keys that interrupt are for this process, which hands them on."""
    environment = {**os.environ, **threads(at_once, os.environ), **gpu(seat)}
    with job.log.open("wb") as stream:
        return subprocess.Popen(
            job.words,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=environment,
            start_new_session=True,
        )


def _failure(code: int, log: Path) -> str | None:
    """Return why a command failed, if it did: its last line, or the signal that killed it."""
    if code == 0:
        return None
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("sitkit: ") if lines else f"exit code {code}, without a word"


def _stop(running: Sequence[tuple[Job, subprocess.Popen[bytes]]]) -> None:
    """Tell all that still run to stop, and wait until they have; kill those that do not."""
    for _, process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    end = time.monotonic() + PATIENCE
    for _, process in running:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
