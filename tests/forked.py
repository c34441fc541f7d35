"""Commands in forks of one process that has imported everything: a run costs no import.

A fork may get faults, names of functions in `faulty.py`, which it calls before it starts.
"""

import atexit
import gc
import hashlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from launching import assert_same
from sitkit.recipes.storage import checkpoints

IMPORTED: tuple[str, ...] = (
    "faulty",
    "sitkit.recipes.cli",
    "sitkit.recipes.training.loop",
    "sitkit.recipes.training.replay",
)
IMPORTED += (
    "sitkit.recipes.training.cost_estimate",
    "sitkit.recipes.training.fsdp",
    "torch._dynamo",
    "PIL.PngImagePlugin",
)


TINY = ["backbone.hidden_size=16", "backbone.depth=1", "backbone.num_heads=2", "train.batch=8", "optimizer.warmup=3"]
TINY += ["log.every=2", "checkpoint.every=2", "checkpoint.keep=2", "grid.every=100", "sampler.steps=1"]
TINY += ["ema.widths=[0.1]"]
Fault: TypeAlias = tuple[str | int | float, ...]


class Fork:
    """A command that runs."""

    def __init__(self, server: "Server", pid: int):
        self.server = server
        self.pid = pid
        self.code: int | None = None

    def wait(self, timeout: float = 240) -> int:
        """Return the exit code, negative if a signal ended the command."""
        end = time.monotonic() + timeout
        while self.code is None:
            self.code = self.server.ask({"wait": self.pid})
            if time.monotonic() > end:
                os.kill(self.pid, 9)
                raise TimeoutError(f"the command took more than {timeout} s")
            time.sleep(0.002)
        return self.code


class Server:
    """The process of which all others are forks."""

    def __init__(self) -> None:
        path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path)}
        words = [sys.executable, __file__]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        atexit.register(self.close)

    def close(self) -> None:
        """End it."""
        with self.process as process:
            process.kill()

    def ask(self, request: dict[str, Any]) -> Any:
        """Send a request and return its answer."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@cache
def server() -> Server:
    """Return the server that all tests share."""
    return Server()


def start(words: list[str], log: Path, *faults: Fault, **environment: str) -> Fork:
    """Start a command, such as ["train", "digits"], its output in a file."""
    request = {"words": words, "log": str(log), "faults": faults, "environment": environment}
    return Fork(server(), server().ask(request))


def finish(words: list[str], log: Path, *faults: Fault, **environment: str) -> int:
    """Run a command to its end, and return its exit code."""
    return start(words, log, *faults, **environment).wait()


def together(count: int, words: list[str], log: Path, *faults: Fault) -> list[int]:
    """Run a command in `count` processes that train together, and return their exit codes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    forks = [start(words, log, *faults, RANK=str(n), LOCAL_RANK=str(n), **shared) for n in range(count)]
    return [fork.wait() for fork in forks]


def words(out: Path, *settings: str, steps: int = 7) -> list[str]:
    """Return the arguments of the command that trains a tiny recipe."""
    chosen = [*TINY, f"train.steps={steps}", *settings]
    return ["train", "digits", "--out", str(out), *(word for one in chosen for word in ("--set", one))]


def error_line(log: Path) -> str:
    """Return the one error line of a command, and assert that it printed no traceback."""
    said = log.read_text()
    assert "Traceback" not in said, said
    (line,) = [line for line in said.splitlines() if line.startswith("sitkit: ")]
    return line


def good(run: Path) -> list[int]:
    """Return the steps of the checkpoints of a run, and assert that none is damaged."""
    found = checkpoints.list_checkpoints(run / "checkpoints")
    for checkpoint in found:
        checkpoints.verify(checkpoint)
    return [checkpoints.step_of(checkpoint) for checkpoint in found]


def assert_resumes(run: Path, straight: Path, log: Path, *settings: str) -> None:
    """Resume a run, and compare it with an uninterrupted one."""
    assert finish(words(run, *settings), log) == 0, log.read_text()
    assert not [*run.rglob("*.tmp")]
    assert good(run) == good(straight)
    assert_same(straight, run)
    for name in ("skipped.jsonl", "grids/step-00000007.png"):
        assert (run / name).exists() == (straight / name).exists()
        assert not (run / name).exists() or (run / name).read_bytes() == (straight / name).read_bytes()


def contents(folder: Path) -> dict[str, str]:
    """Return the hashes of the files of a folder without unfinished checkpoints."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and ".tmp" not in str(file.parent)]
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def serve() -> dict[str, Any] | None:
    """Answer requests until there are no more; return a request in the fork that has to run it."""
    for line in iter(sys.stdin.readline, ""):
        request: dict[str, Any] = json.loads(line)
        if "wait" in request:
            pid, status = os.waitpid(request["wait"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if not answer:
                return request
        print(json.dumps(answer), flush=True)
    return None


def become(request: dict[str, Any]) -> None:
    """Run the command of a request."""
    from sitkit.recipes.cli import main

    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
        os.dup2(descriptor, stream)
    os.environ.update(request["environment"])
    for name, *arguments in request["faults"]:
        getattr(importlib.import_module("faulty"), name)(*arguments)
    sys.argv = ["sitkit", *request["words"]]
    main()


if __name__ == "__main__":
    for module in IMPORTED:
        importlib.import_module(module)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # SIGINT is ignored if tests run in the background
    gc.freeze()  # or garbage collection in each fork would copy its pages
    if work := serve():
        become(work)
