"""Timing in turns: each setup runs in separate processes, and one setup runs at a time.

So other load on the machine affects all setups alike, memory is measured per setup, and ratios can be taken per round.
"""

import multiprocessing
import os
import resource
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from shapes import Setup
from workloads import Workload, build

from sitkit.recipes.training.process_group import init_process_group

Times = dict[str, Any]
"""A setup; (processor) seconds of `forward` and `step` in each round; memory at the start and at its peak."""

WARM = 2


def time_interleaved(
    setups: Sequence[Setup], rounds: int, steps: bool = True, say: Callable[[str], None] = lambda line: None
) -> list[Times]:
    """Return the times of each setup.

    Args:
        setups: what is timed, one after the other in each round.
        rounds: number of rounds.
        steps: whether training steps are timed, too.
        say: prints a line of progress.
    """
    context = multiprocessing.get_context("spawn")
    times: list[Times] = []
    with ExitStack() as stack:
        groups: list[list[Connection]] = []
        for setup in setups:  # one by one, so that compilers do not compete
            groups.append([])
            started = []
            for environment in _environments(setup.processes):
                pipe, theirs = context.Pipe()
                process = context.Process(target=_work, args=(setup, environment, theirs, steps), daemon=True)
                process.start()
                theirs.close()  # so that the end of a process is the end of its pipe
                started.append(process)
                groups[-1].append(pipe)
            for process in started:
                stack.callback(process.join)
            for pipe in groups[-1]:
                stack.callback(pipe.close)  # which ends its process
            ready = max(pipe.recv() for pipe in groups[-1])
            say(f"{setup.network}{', compiled' if setup.compiled else ''}: ready after {ready:.0f} s")
            times.append({**asdict(setup), "ready": ready, "load": []})
        for _ in range(rounds):
            for group, record in zip(groups, times, strict=True):
                record["load"].append(round(os.getloadavg()[0], 2))
                for what in ("forward", "step") if steps and record["network"] != "matrix" else ("forward",):
                    seconds, processor = zip(*_ask(group, what), strict=True)
                    record.setdefault(what, []).append(max(seconds))
                    record.setdefault(f"{what}_cpu", []).append(sum(processor))
        for group, record in zip(groups, times, strict=True):
            for what in ("bare", "memory"):
                record[what] = sum(_ask(group, what))
    return times


def _ask(group: Sequence[Connection], what: str) -> list[Any]:
    """Send a request to all processes of a setup at once, and return their answers."""
    for pipe in group:
        pipe.send(what)
    return [pipe.recv() for pipe in group]


def _environments(processes: int) -> list[dict[str, str]]:
    """Return the variables that torchrun sets for each of several processes; none for a single process."""
    if processes == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {name: str(processes) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [world | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def _work(setup: Setup, environment: dict[str, str], pipe: Connection, steps: bool) -> None:
    """Run requests for a setup, in one process or as one rank of several, and answer with their times."""
    start, bare = time.perf_counter(), peak(setup.device)
    os.environ.update(environment)
    with init_process_group(torch.device(setup.device)) as group:
        _serve(build(setup, group), setup, start, bare, pipe, steps)


def _serve(trial: Workload, setup: Setup, start: float, bare: int, pipe: Connection, steps: bool) -> None:
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
                pipe.send(time_call(getattr(trial, what), setup.device))


def time_call(run: Callable[[], object], device: str = "cpu") -> tuple[float, float]:
    """Return the seconds and processor seconds of a call."""
    wait(device)
    start, processor = time.perf_counter(), time.process_time()
    run()
    wait(device)
    return time.perf_counter() - start, time.process_time() - processor


def wait(device: str) -> None:
    """Synchronize with a device."""
    if device != "cpu":
        torch.cuda.synchronize()


def peak(device: str) -> int:
    """Return the peak memory of this process in bytes: on the device, or of the process."""
    if device != "cpu":
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")  # the value of `getrusage` includes the parent's
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
