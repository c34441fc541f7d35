"""Sinks, which receive the records and image grids of a run: TensorBoard, wandb, or a custom class.

Sinks show the records of `metrics.jsonl` while the run continues. Only the main process opens them. A run that was
killed resumes from its last checkpoint and repeats some steps: sinks show no point twice.
"""

import json
import math
import os
import secrets
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from ..experiment.recipe import Recipe
from ..storage.files import read_inside, write_atomic
from ..support.errors import UserError
from ..support.json_toml import read_json

Record: TypeAlias = Mapping[str, Any]
"""`step`, and numbers and short lists of numbers by name. A list may have None in place of a number."""


class Sink(Protocol):
    """Receives records and images of a run."""

    def write(self, record: Record, /) -> None:
        """Write a record."""
        ...

    def image(self, name: str, file: Path, step: int, /) -> None:
        """Write an image, a .png in the run folder, of a step whose record was written."""
        ...

    def close(self) -> None:
        """Complete all writes."""
        ...


def open_sinks(recipe: Recipe, folder: Path, step: int) -> list[Sink]:
    """Return the sinks of a recipe.

    Args:
        recipe: whose `log.sinks` are opened.
        folder: the run folder.
        step: the step from which the run starts or resumes.

    Raises:
        UserError: a sink needs a package that is not installed, or cannot be opened.
    """
    sinks: list[Sink] = []
    for name in recipe.log.sinks:
        try:
            sinks.append(TensorBoard(folder, step) if name == "tensorboard" else WandB(recipe, folder))
        except ImportError as error:
            raise UserError(f"log.sinks: {name} is not installed: pip install 'sitkit[{name}]' ({error})") from error
    return sinks


def flatten(record: Record) -> dict[str, float]:
    """Return the finite numbers of a record without its step. Number 3 of a list `loss_by_t` is `loss_by_t/03`."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        many = isinstance(value, list | tuple)
        flat |= {f"{name}/{i:02d}": one for i, one in enumerate(value)} if many else {name: value}
    del flat["step"]
    return {name: float(one) for name, one in flat.items() if isinstance(one, int | float) and math.isfinite(one)}


class TensorBoard:
    """Events in `tensorboard/` of the run folder. `tensorboard --logdir RUN` shows them."""

    def __init__(self, folder: Path, step: int):
        """Open a new event file, which discards the events of earlier files after a step.

        Raises:
            ImportError: tensorboard is not installed.
        """
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, record: Record, /) -> None:
        """Write the numbers of a record, and flush."""
        for name, value in flatten(record).items():
            self.writer.add_scalar(name, value, record["step"])
        self.writer.flush()  # a resumed run does not repeat the steps before its checkpoint

    def image(self, name: str, file: Path, step: int, /) -> None:
        """Write an image."""
        import numpy as np
        from PIL import Image

        with Image.open(file) as image:
            self.writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


class WandB:
    """A run of Weights & Biases for a run folder, whose `wandb.json` has its id and the last step sent.

    WANDB_PROJECT sets the project, by default `sitkit`, and WANDB_MODE the mode, which may be `offline`. Steps that
    were sent are not sent again: a resumed run computes the same numbers for them.
    """

    def __init__(self, recipe: Recipe, folder: Path):
        """Open the run of the folder, or create it.

        Raises:
            ImportError: wandb is not installed.
            UserError: wandb cannot open it.
        """
        wandb: Any = import_module("wandb")
        self.image_type = wandb.Image
        self.file = folder / "wandb.json"
        try:
            new: dict[str, Any] = {"id": secrets.token_hex(4), "step": 0}
            self.state: dict[str, Any] = read_json(read_inside(folder, self.file.name)) if self.file.exists() else new
            self.sent = int(self.state["step"])
            write_atomic(self.file, json.dumps(self.state).encode())
            self.run: Any = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "sitkit"),
                name=folder.resolve().name,
                id=self.state["id"],
                dir=str(folder),
                config=recipe.model_dump(mode="json"),
                resume="allow",
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"log.sinks: {self.file} cannot be used: {error}") from error
        except wandb.Error as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"log.sinks: wandb: {reason}; `wandb login`, or set WANDB_MODE=offline") from error

    def write(self, record: Record, /) -> None:
        """Send the numbers of a record, unless they were sent before."""
        if record["step"] > self.sent:
            self.run.log(flatten(record), step=record["step"])
            self.state["step"] = record["step"]
            write_atomic(self.file, json.dumps(self.state).encode())

    def image(self, name: str, file: Path, step: int, /) -> None:
        """Send an image, unless it was sent before."""
        if step > self.sent:
            self.run.log({name: self.image_type(str(file))}, step=step)

    def close(self) -> None:
        """Wait until everything is sent."""
        self.run.finish()
