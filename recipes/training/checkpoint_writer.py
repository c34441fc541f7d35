"""Writing checkpoints in the background, one at a time."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from ..experiment.recipe import Recipe
from ..storage import checkpoints
from ..support.errors import UserError
from .process_group import ProcessGroup, full_tensor
from .state import SHARDS, TrainingState


class CheckpointWriter:
    """Copies a training state, and writes the copy while training continues.

    Args:
        folder: of the checkpoints.
        recipe: is stored with each checkpoint, and determines how many of them stay.
        group: the main process writes; where weights are sharded, each process writes its shards.
    """

    def __init__(self, folder: Path, recipe: Recipe, group: ProcessGroup):
        self.folder = folder
        self.recipe = recipe
        self.group = group
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.writing: Future[Any] | None = None
        self.gloo = dist.new_group(backend="gloo") if group.world_size > 1 else None

    def save(self, state: TrainingState) -> None:
        """Start to write a checkpoint, once the one before it is on the disk.

        Raises:
            UserError: the one before it could not be written.
        """
        self.wait()
        temporary = self.folder / f"{checkpoints.name(state.step)}.tmp"
        parts = state.state_dicts()
        shards: Future[Any] | None = None
        if state.sharded:
            from . import fsdp

            self.group.on_main(lambda: self._create(temporary))
            shards = fsdp.write(temporary / SHARDS, state.sharded_tensors(), self.gloo)
            del parts["model"], parts["optimizer"]
            parts = {part: {key: full_tensor(value) for key, value in values.items()} for part, values in parts.items()}
        if self.group.is_main:
            copies = {
                part: {key: value.detach().to("cpu", copy=True) for key, value in values.items()}
                for part, values in parts.items()
            }
            self.writing = self.thread.submit(self._write, state.step, copies, shards)
        else:
            self.writing = shards

    def wait(self) -> None:
        """Wait until no checkpoint is being written.

        Raises:
            UserError: the last checkpoint could not be written.
        """
        if self.writing is None:
            return
        writing, self.writing = self.writing, None
        try:
            writing.result()
        except OSError as error:
            raise self._failure(error) from None
        except Exception as error:  # other libraries raise their own errors for a full disk
            raise self._failure(error) from error

    def close(self) -> None:
        """Wait until no checkpoint is being written, and end the thread.

        Raises:
            UserError: the last checkpoint could not be written.
        """
        try:
            self.wait()
        finally:
            self.thread.shutdown()

    def _create(self, temporary: Path) -> None:
        try:
            checkpoints.create_temporary(self.folder, checkpoints.step_of(temporary.with_suffix("")))
        except OSError as error:
            raise self._failure(error) from None

    def _write(self, step: int, parts: dict[str, dict[str, Tensor]], shards: Future[Any] | None) -> None:
        if shards:
            temporary = self.folder / f"{checkpoints.name(step)}.tmp"
        else:
            temporary = checkpoints.create_temporary(self.folder, step)
        for part, values in parts.items():
            checkpoints.write(temporary, part, values)
        if shards:
            shards.result()  # of all processes
        checkpoints.finish(temporary, self.recipe.model_dump(mode="json"))
        checkpoints.prune(self.folder, step, self.recipe.checkpoint.keep, self.recipe.checkpoint.milestone)

    def _failure(self, error: BaseException) -> UserError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        good = checkpoints.list_checkpoints(self.folder)
        last = f"the last good one is {good[-1].name}" if good else "there is none yet"
        return UserError(f"a checkpoint could not be written to {self.folder}: {reason}; {last}".replace("\n", " "))
