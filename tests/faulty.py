"""Faults for training runs: an objective that is not finite for some samples, and patches for forks."""

import errno
import itertools
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from sitkit.objectives import Field, Matching
from sitkit.recipes.runs import run
from sitkit.recipes.storage import checkpoints
from sitkit.recipes.support import random_streams
from sitkit.recipes.training import loop
from sitkit.recipes.training.checkpoint_writer import CheckpointWriter
from sitkit.recipes.training.state import TrainingState
from sitkit.recipes.training.step import TrainingStep

CHANGES = ("mkdir", "serialize_file", "write", "fsync", "replace", "unlink", "rmdir")
"""The calls of the system by which a save changes what is on the disk, and `serialize_file`, which is safetensors'."""


@dataclass(frozen=True)
class Sometimes:
    """Matching whose loss is NaN for the samples with some numbers, which are recognised by their noise."""

    path: Any
    numbers: tuple[int, ...] = ()
    seed: int = 0

    def __call__(self, model: Field, x: Tensor, eps: Tensor, t: Tensor, /) -> Tensor:
        loss = Matching(self.path)(model, x, eps, t)
        noise = random_streams.noise(
            self.seed, random_streams.Stream.NOISE, torch.tensor(self.numbers), tuple(x.shape[1:])
        )
        chosen = (eps[:, None] == noise).flatten(2).all(2).any(1)
        return loss * torch.where(chosen, torch.nan, 1.0)

    def field(self, model: Field, /) -> Field:
        return Matching(self.path).field(model)


def _before(owner: Any, name: str, act: Callable[..., None]) -> None:
    """Call `act` before each call of a function, with the same arguments."""
    original = getattr(owner, name)

    @wraps(original)
    def patched(*args: Any, **kwargs: Any) -> Any:
        act(*args, **kwargs)
        return original(*args, **kwargs)

    setattr(owner, name, patched)


def die_saving(step: int, copies: str) -> None:
    """At the checkpoint of a step, first save it in forks, each in a copy of the run and killed at another stage.

    The stages are just before every call that changes the disk, and in the middle of every file's content. A copy has
    the number of its stage, whose name is in its file `stage`.
    """
    original = CheckpointWriter._write

    def write(writer: CheckpointWriter, at: int, *args: Any) -> None:
        for number in itertools.count(1) if at == step else ():
            copy = Path(copies) / f"{number:03}"
            shutil.copytree(writer.folder.parent, copy)
            pid = os.fork()
            if not pid:
                writer.folder = copy / "checkpoints"
                sys.setprofile(_Death(number, copy / "stage"))
                try:
                    original(writer, at, *args)
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert code in (0, -signal.SIGKILL)
            if code == 0:
                break  # there are no more stages
        original(writer, at, *args)

    save = CheckpointWriter.save

    def save_alone(writer: CheckpointWriter, state: TrainingState) -> None:
        save(writer, state)
        writer.wait()  # so that a fork inherits no lock that another thread holds

    setattr(CheckpointWriter, "_write", write)  # noqa: B010 (mypy allows no other way)
    setattr(CheckpointWriter, "save", save_alone)  # noqa: B010


class _Death:
    """Profiler hook of a thread that kills the process at a given stage."""

    def __init__(self, number: int, note: Path):
        self.left = number
        self.note = note

    def __call__(self, frame: FrameType, event: str, called: Any) -> None:
        if not event.startswith("c_") or isinstance(getattr(called, "__self__", None), str):
            return
        name = called.__name__
        if event == "c_call" and name in CHANGES:
            self.pass_by(f"before {name}")
            if name == "write":
                self.pass_by("within write", lambda: _cut(frame.f_locals["self"], frame.f_locals["data"][:100]))
        if event == "c_return" and name == "serialize_file":
            self.pass_by("within serialize_file", lambda: os.truncate(frame.f_locals["filename"], 1000))

    def pass_by(self, stage: str, act: Callable[[], object] = lambda: None) -> None:
        self.left -= 1
        if not self.left:
            act()
            self.note.write_text(stage)
            os.kill(os.getpid(), signal.SIGKILL)


def _cut(file: Path, content: str) -> None:
    file.write_text(content)


def fill_disk(step: int, owner: str, name: str) -> None:
    """Let a function of a module fail with no space left on the device from the checkpoint of a step on."""
    full = False

    def write(writer: CheckpointWriter, at: int, *args: Any) -> None:
        nonlocal full
        full = at == step

    def refuse(*args: Any, **kwargs: Any) -> None:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    _before(CheckpointWriter, "_write", write)
    _before(sys.modules[owner], name, refuse)


def fill_records(step: int, file: str) -> None:
    """Let the device be full after half of the logged line of a step in a file."""

    def refuse(path: Path, record: dict[str, Any]) -> None:
        if path.name == file and record["step"] == step:
            with path.open("a") as stream:
                stream.write('{"step": ')
            path.rename(path.with_name("full"))
            path.symlink_to("/dev/full")  # of the next write

    _before(run, "append_record", refuse)


def limit_files(step: int, size: int) -> None:
    """Limit the size of files from the checkpoint of a step on: the system refuses to write more."""

    def limit(writer: CheckpointWriter, at: int, *args: Any) -> None:
        if at == step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    _before(CheckpointWriter, "_write", limit)


def fill_picture(step: int) -> None:
    """Leave no space on the device for the image grid after a step."""

    def refuse(picture: Image, file: Any, *args: Any, **kwargs: Any) -> None:
        if checkpoints.name(step) in str(file):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    _before(Image, "save", refuse)


def die_before_picture(step: int, folder: str) -> None:
    """Kill this process between the checkpoint of a step and its image grid."""

    def die(state: TrainingState, *args: Any) -> None:
        if state.step == step:
            while [int(one.name[5:]) for one in checkpoints.list_checkpoints(Path(folder))] != [
                step - 1,
                step,
            ]:  # pruned
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

    _before(loop, "save_grid", die)


def signals(step: int, *numbers: int) -> None:
    """Send signals to this process, one after the other, when a step starts."""

    def send(take_step: TrainingStep, at: int, *args: Any, **kwargs: Any) -> None:
        if at == step:
            for number in numbers:
                signal.raise_signal(number)  # handled before the next one, unlike with `os.kill`

    _before(TrainingStep, "__call__", send)


def lose(step: int, file: str) -> None:
    """Remove a file when a step starts."""

    def remove(take_step: TrainingStep, at: int, *args: Any, **kwargs: Any) -> None:
        if at == step:
            os.remove(file)

    _before(TrainingStep, "__call__", remove)


def slow_saves(seconds: float) -> None:
    """Delay every checkpoint by some seconds."""
    _before(checkpoints, "finish", lambda *args: time.sleep(seconds))
