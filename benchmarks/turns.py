"""Times taken in turns: each setup has a process of its own, and one of them runs at a time.

What disturbs the machine disturbs all alike, memory is each setup's own, and ratios are taken round by round.
"""

import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from shapes import Setup
from trials import build

Times = dict[str, Any]
"""A setup; of `forward` and `step` seconds and the processor's seconds of each round; memory at its peak and before."""

WARM = 2


def take_turns(
    setups: Sequence[Setup], rounds: int, steps: bool = True, say: Callable[[str], None] = lambda line: None
) -> list[Times]:
    """Return the times of each setup.

    Args:
        setups: what is timed, one after the other in each round.
        rounds: how many.
        steps: whether steps of training are timed, too.
        say: takes lines for the reader.
    """
    context = multiprocessing.get_context("spawn")
    times: list[Times] = []
    with ExitStack() as stack:
        pipes: list[Connection] = []
        for setup in setups:  # one by one: compilers want the machine for themselves
            pipe, theirs = context.Pipe()
            process = context.Process(target=_work, args=(setup, theirs, steps), daemon=True)
            process.start()
            theirs.close()  # so that the end of a process is the end of its pipe
            stack.callback(process.join)
            stack.callback(pipe.close)  # which ends it
            pipes.append(pipe)
            ready = pipe.recv()
            say(f"{setup.contender}{', compiled' if setup.compiled else ''}: ready after {ready:.0f} s")
            times.append({**asdict(setup), "ready": ready, "load": []})
        for _ in range(rounds):
            for pipe, record in zip(pipes, times, strict=True):
                record["load"].append(round(os.getloadavg()[0], 2))
                for what in ("forward", "step") if steps and record["contender"] != "matrix" else ("forward",):
                    pipe.send(what)
                    seconds, processor = pipe.recv()
                    record.setdefault(what, []).append(seconds)
                    record.setdefault(f"{what}_cpu", []).append(processor)
        for pipe, record in zip(pipes, times, strict=True):
            for what in ("bare", "memory"):
                pipe.send(what)
                record[what] = pipe.recv()
    return times


def _work(setup: Setup, pipe: Connection, steps: bool) -> None:
    """Serve a setup: run what is asked for, and tell how long it took."""
    start, bare = time.perf_counter(), peak(setup.device)
    trial = build(setup)
    for _ in range(WARM):
        trial.forward()
        if steps:
            trial.step()
    pipe.send(time.perf_counter() - start)
    with suppress(EOFError):
        while True:
            what = pipe.recv()
            if what in ("bare", "memory"):
                pipe.send(bare if what == "bare" else peak(setup.device))
            else:
                pipe.send(clocked(getattr(trial, what), setup.device))


def clocked(run: Callable[[], object], device: str = "cpu") -> tuple[float, float]:
    """Return the seconds that a call takes, and those that this process was computing meanwhile."""
    wait(device)
    start, processor = time.perf_counter(), time.process_time()
    run()
    wait(device)
    return time.perf_counter() - start, time.process_time() - processor


def wait(device: str) -> None:
    """Wait until a device has done all that it was asked to."""
    if device != "cpu":
        torch.cuda.synchronize()


def peak(device: str) -> int:
    """Return the most memory that this process has had, in bytes: of the device, or of the process."""
    if device != "cpu":
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")  # that of `getrusage` begins with what the parent had
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
