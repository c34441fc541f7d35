"""Commands in processes of this machine: a number of them at once, each after the one that it needs."""

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
"""Seconds between two looks at the processes."""
PATIENCE = 60.0
"""Seconds in which a process that is interrupted may save its work."""


@dataclass(frozen=True)
class Job:
    """Parts that one command computes, the part that they need, and their cost in any unit."""

    keys: tuple[str, ...]
    needs: str | None = None
    cost: float = 1.0


@dataclass(frozen=True)
class JobResult:
    """A part that has ended: its key, its cost, and why it failed, if it did."""

    key: str
    cost: float
    failure: str | None


def run_jobs(
    jobs: Sequence[Job],
    at_once: int,
    command: Callable[[Sequence[str]], Sequence[str]],
    log: Callable[[str], Path],
    report: Callable[[JobResult], None],
) -> None:
    """Run jobs in their order, some at once; what needs a failed part fails as well.

    A job of several parts that fails is repeated part by part. Each process has one of the machine's GPUs, in turn,
    and its share of the cores, unless the user has set a number of threads. If this process is interrupted, it
    interrupts them.

    Args:
        jobs: what to do; what a job needs is done already, or stands before it.
        at_once: the number of processes.
        command: returns the command of some keys.
        log: returns the file of the output of a job, by its first key.
        report: is called with each part that has ended, in that order.

    Raises:
        KeyboardInterrupt: this process was interrupted; all that it started has ended.
    """
    waiting = list(jobs)
    open_keys = {key for job in jobs for key in job.keys}
    failed: set[str] = set()
    running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}  # by seat

    def end(job: Job, failure: str | None) -> None:
        open_keys.difference_update(job.keys)
        failed.update(job.keys if failure else ())
        for key in job.keys:
            report(JobResult(key, job.cost / len(job.keys), failure))

    with ExitStack() as stack:
        stack.callback(lambda: _stop([process for _, process in running.values()]))
        interrupted = stack.enter_context(interrupts())
        while waiting or running:
            if interrupted():
                raise KeyboardInterrupt
            for seat, (job, process) in [*running.items()]:
                if process.poll() is None:
                    continue
                del running[seat]
                failure = _failure(process.returncode, log(job.keys[0]))
                if failure and len(job.keys) > 1:
                    waiting[:0] = [Job((key,), job.needs, job.cost / len(job.keys)) for key in job.keys]
                else:
                    end(job, failure)
            for job in list(waiting):
                if job.needs in failed:
                    waiting.remove(job)
                    end(job, f"not tried, for {job.needs} failed")
            for job in [job for job in waiting if job.needs not in open_keys][: at_once - len(running)]:
                waiting.remove(job)
                seat = min(set(range(at_once)) - running.keys())
                running[seat] = (job, _start(command(job.keys), log(job.keys[0]), at_once, seat))
            if running:
                time.sleep(LOOK_EVERY)


def threads(at_once: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that divide the cores among processes; none if the user has set a number of threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    if any(name in environment for name in names):
        return {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return dict.fromkeys(names, str(max(1, cores // at_once)))


def gpu(seat: int) -> dict[str, str]:
    """Return the variable that gives a process one GPU, by its place among those at once; none without GPUs."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [*map(str, range(torch.cuda.device_count()))] if visible is None else [*filter(None, visible.split(","))]
    return {"CUDA_VISIBLE_DEVICES": names[seat % len(names)]} if names else {}


def _start(words: Sequence[str], log: Path, at_once: int, seat: int) -> subprocess.Popen[bytes]:
    """Start a command in a separate process group: keys that interrupt reach this process, which passes them on."""
    environment = {**os.environ, **threads(at_once, os.environ), **gpu(seat)}
    with log.open("wb") as stream:
        return subprocess.Popen(
            words,
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
    return lines[-1].removeprefix("sitkit: ") if lines else f"exit code {code}, without output"


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupt processes, wait until they have ended, and kill those that do not."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    end = time.monotonic() + PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
