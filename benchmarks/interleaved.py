"""Times taken in turns: each setup has a process of its own, or several, and one setup runs at a time.

What disturbs the machine disturbs all alike, memory is each setup's own, and ratios are taken round by round.
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
"""A setup; of `forward` and `step` seconds and the processor's seconds of each round; memory at its peak and before."""

WARM = 2


def time_interleaved(
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
        teams: list[list[Connection]] = []
        for setup in setups:  # one by one: compilers want the machine for themselves
            teams.append([])
            started = []
            for environment in _environments(setup.processes):
                pipe, theirs = context.Pipe()
                process = context.Process(target=_work, args=(setup, environment, theirs, steps), daemon=True)
                process.start()
                theirs.close()  # so that the end of a process is the end of its pipe
                started.append(process)
                teams[-1].append(pipe)
            for process in started:
                stack.callback(process.join)
            for pipe in teams[-1]:
                stack.callback(pipe.close)  # which ends its process
            ready = max(pipe.recv() for pipe in teams[-1])
            say(f"{setup.network}{', compiled' if setup.compiled else ''}: ready after {ready:.0f} s")
            times.append({**asdict(setup), "ready": ready, "load": []})
        for _ in range(rounds):
            for group, record in zip(teams, times, strict=True):
                record["load"].append(round(os.getloadavg()[0], 2))
                for what in ("forward", "step") if steps and record["network"] != "matrix" else ("forward",):
                    seconds, processor = zip(*_ask(group, what), strict=True)
                    record.setdefault(what, []).append(max(seconds))
                    record.setdefault(f"{what}_cpu", []).append(sum(processor))
        for group, record in zip(teams, times, strict=True):
            for what in ("bare", "memory"):
                record[what] = sum(_ask(group, what))
    return times


def _ask(group: Sequence[Connection], what: str) -> list[Any]:
    """Return what each process of a setup answers, all of them at it together."""
    for pipe in group:
        pipe.send(what)
    return [pipe.recv() for pipe in group]


def _environments(processes: int) -> list[dict[str, str]]:
    """Return what torchrun would tell each of so many processes; nothing to one that is alone."""
    if processes == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {name: str(processes) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [world | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def _work(setup: Setup, environment: dict[str, str], pipe: Connection, steps: bool) -> None:
    """Serve a setup, alone or with others: run what is asked for, and tell how long it took."""
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
