"""Writing checkpoints beside the training, one at a time."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from ..experiment.recipe import Recipe
from ..storage import checkpoints
from ..support.errors import UserError
from .process_group import ProcessGroup, whole
from .state import PIECES, TrainingState


class CheckpointWriter:
    """Takes a copy of a state at once, and writes it while training goes on.

    Args:
        folder: of the checkpoints.
        recipe: is written with each, and says how many are kept.
        group: of whom the leader writes, and all their pieces, where weights are sharded.
    """

    def __init__(self, folder: Path, recipe: Recipe, group: ProcessGroup):
        self.folder = folder
        self.recipe = recipe
        self.group = group
        self.writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.writing: Future[Any] | None = None
        self.gloo = dist.new_group(backend="gloo") if group.world_size > 1 else None

    def save(self, state: TrainingState) -> None:
        """Begin to write a checkpoint, after the one before it is on the disk.

        Raises:
            UserError: the one before it could not be written.
        """
        self.wait()
        draft = self.folder / f"{checkpoints.name(state.step)}.tmp"
        parts = state.parts()
        piece: Future[Any] | None = None
        if state.sharded:
            from . import fsdp

            self.group.agree(lambda: self._prepare(draft))
            piece = fsdp.write(draft / PIECES, state.pieces(), self.gloo)
            del parts["model"], parts["optimizer"]
            parts = {part: {key: whole(value) for key, value in values.items()} for part, values in parts.items()}
        if self.group.is_main:
            copies = {
                part: {key: value.detach().to("cpu", copy=True) for key, value in values.items()}
                for part, values in parts.items()
            }
            self.writing = self.writer.submit(self._write, state.step, copies, piece)
        else:
            self.writing = piece

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises:
            UserError: what was being written could not be.
        """
        if self.writing is None:
            return
        writing, self.writing = self.writing, None
        try:
            writing.result()
        except OSError as error:
            raise self._problem(error) from None
        except Exception as error:  # of other libraries, for a full disk as well
            raise self._problem(error) from error

    def close(self) -> None:
        """Wait until nothing is being written, and let go of the thread.

        Raises:
            UserError: what was being written could not be.
        """
        try:
            self.wait()
        finally:
            self.writer.shutdown()

    def _prepare(self, draft: Path) -> None:
        try:
            checkpoints.create_temporary(self.folder, checkpoints.step_of(draft.with_suffix("")))
        except OSError as error:
            raise self._problem(error) from None

    def _write(self, step: int, parts: dict[str, dict[str, Tensor]], piece: Future[Any] | None) -> None:
        draft = (
            self.folder / f"{checkpoints.name(step)}.tmp" if piece else checkpoints.create_temporary(self.folder, step)
        )
        for part, values in parts.items():
            checkpoints.write(draft, part, values)
        if piece:
            piece.result()  # of all processes
        checkpoints.finish(draft, self.recipe.model_dump(mode="json"))
        checkpoints.prune(self.folder, step, self.recipe.checkpoint.keep, self.recipe.checkpoint.milestone)

    def _problem(self, error: BaseException) -> UserError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        good = checkpoints.list_checkpoints(self.folder)
        last = f"the last good one is {good[-1].name}" if good else "there is none yet"
        return UserError(f"a checkpoint could not be written to {self.folder}: {reason}; {last}".replace("\n", " "))
