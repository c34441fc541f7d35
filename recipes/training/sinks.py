"""Where the records and pictures of a run go besides its folder: TensorBoard, wandb, or a class of one's own.

`metrics.jsonl` is the truth, and a sink a copy of it, to be looked at while the run goes on. One process opens sinks. A
run that was cut goes on from its last checkpoint and comes through some steps again: no sink shows a point twice.
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
"""`step`, and beside it numbers and short lists of numbers by name; None in a list is no number."""


class Sink(Protocol):
    """Takes what training tells."""

    def write(self, record: Record, /) -> None:
        """Take a record."""
        ...

    def picture(self, name: str, file: Path, step: int, /) -> None:
        """Take a picture, a .png that lies in the run's folder, of a step whose record was written."""
        ...

    def close(self) -> None:
        """Finish what is under way."""
        ...


def open_sinks(recipe: Recipe, folder: Path, step: int) -> list[Sink]:
    """Return the sinks that a recipe asks for, of a run in a folder that has done so many steps.

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
    """Return the finite numbers of a record but for its step; number 3 of a list `loss_by_t` is `loss_by_t/03`."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        many = isinstance(value, list | tuple)
        flat |= {f"{name}/{i:02d}": one for i, one in enumerate(value)} if many else {name: value}
    del flat["step"]
    return {name: float(one) for name, one in flat.items() if isinstance(one, int | float) and math.isfinite(one)}


class TensorBoard:
    """Events in `tensorboard/` of the run's folder: `tensorboard --logdir RUN` shows them."""

    def __init__(self, folder: Path, step: int):
        """Open a file of events, which purges those that an earlier one has after a step.

        Raises:
            ImportError: tensorboard is not installed.
        """
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, record: Record, /) -> None:
        """Write the numbers of a record, and let them be seen at once."""
        for name, value in flatten(record).items():
            self.writer.add_scalar(name, value, record["step"])
        self.writer.flush()  # what a crash would lose before a checkpoint, no resumed run writes again

    def picture(self, name: str, file: Path, step: int, /) -> None:
        """Write a picture."""
        import numpy as np
        from PIL import Image

        with Image.open(file) as picture:
            self.writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


class WandB:
    """A run of Weights & Biases of its own for the folder, whose `wandb.json` has its id and the last step it took.

    Project and mode are those of the variables WANDB_PROJECT, else `sitkit`, and WANDB_MODE, which may be `offline`.
    Steps that it has taken are not sent again: a resumed run computes the same numbers for them.
    """

    def __init__(self, recipe: Recipe, folder: Path):
        """Open the run, a new one or the one of the folder.

        Raises:
            ImportError: wandb is not installed.
            UserError: wandb does not open it.
        """
        wandb: Any = import_module("wandb")
        self.images = wandb.Image
        self.file = folder / "wandb.json"
        try:
            new: dict[str, Any] = {"id": secrets.token_hex(4), "step": 0}
            self.state: dict[str, Any] = read_json(read_inside(folder, self.file.name)) if self.file.exists() else new
            self.done = int(self.state["step"])
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
        if record["step"] > self.done:
            self.run.log(flatten(record), step=record["step"])
            self.state["step"] = record["step"]
            write_atomic(self.file, json.dumps(self.state).encode())

    def picture(self, name: str, file: Path, step: int, /) -> None:
        """Send a picture, unless it was sent before."""
        if step > self.done:
            self.run.log({name: self.images(str(file))}, step=step)

    def close(self) -> None:
        """Wait until all is sent."""
        self.run.finish()
