"""Commands in separate processes, for tests of what happens when they stop."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file

from sitkit.recipes.runs.run import Run
from sitkit.recipes.support.errors import UserError

SMALL = ["backbone.hidden_size=16", "backbone.depth=2", "backbone.num_heads=2", "train.batch=16", "train.steps=12"]
SMALL += ["optimizer.warmup=3", "sampler.steps=2", "log.every=3", "checkpoint.every=4", "grid.every=100"]
ALONE = [sys.executable, "-m", "sitkit.recipes"]
ELASTIC = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Without it an agent that replaces a dead one waits for an address that torch 2.13 gives only once."""
SPEED = ("seconds", "images_per_second", "teraflops", "memory_gib")


def torchrun(count: int, *options: str) -> list[str]:
    """Return the command that starts `count` processes on this machine."""
    usual = [] if options else ["--standalone"]
    return [sys.executable, "-m", "torch.distributed.run", *usual, *options, f"--nproc-per-node={count}"]


def command(out: Path, *settings: str, processes: int = 1, steps: int | None = None) -> list[str]:
    """Return the command that trains a small recipe."""
    chosen = [*SMALL, *([] if steps is None else [f"train.steps={steps}"]), *settings]
    launch = ALONE if processes == 1 else [*torchrun(processes), "-m", "sitkit.recipes"]
    return [*launch, "train", "digits", "--out", str(out), *(word for one in chosen for word in ("--set", one))]


def start(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command in a new process group, with its output in a file."""
    environment = {**os.environ, **ELASTIC, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    with log.open("ab") as stream:
        return subprocess.Popen(words, stdout=stream, stderr=stream, env=environment, start_new_session=True)


def finish(words: Sequence[str], log: Path, timeout: float = 240) -> int:
    """Run a command to its end, and return its exit code."""
    process = start(words, log)
    try:
        return process.wait(timeout)
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a command and all its descendants."""
    for pid in (process.pid, *descendants(process.pid)):  # torchrun starts its workers in new sessions
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def descendants(pid: int) -> list[int]:
    """Return the ids of all descendants of a process."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in table.splitlines()]
    children = [child for child, parent in pairs if parent == pid]
    return [*children, *(below for child in children for below in descendants(child))]


def wait_for(process: subprocess.Popen[bytes], folder: Path, step: int, timeout: float = 120) -> None:
    """Wait until a run has logged a step or has ended."""
    end = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < end:
        if any(record["step"] >= step for record in Run(folder).metrics()):
            return
        time.sleep(0.02)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of a run's newest checkpoint, by file and name."""
    files = sorted(Run(folder).latest().rglob("*.safetensors"))
    return {f"{file.name}/{key}": value for file in files for key, value in load_file(file).items()}


def records(folder: Path) -> list[str]:
    """Return the logged metrics of a run without its speed."""
    lines = [{key: value for key, value in record.items() if key not in SPEED} for record in Run(folder).metrics()]
    return [json.dumps(line) for line in lines]


def assert_same(one: Path, other: Path) -> None:
    """Compare two runs bit for bit."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert records(one) == records(other)


class FailsOnce:
    """Training times that raise in the second of two processes at the sixth step."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, uniforms: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls > 6 and os.environ.get("RANK") == "1":
            raise UserError("this process has had enough")
        return uniforms
