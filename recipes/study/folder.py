"""The folder of a study: what is done of it, what failed, and where all of it lies.

`models/KEY/` is the run of a network and `cells/KEY/` what was measured of a cell, which is done when `cell.json` is
there, of the images that there are now. `logs/KEY.txt` is what the command said that did it last, and `failed/KEY.txt`
its last line, if it failed.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..evaluation.data_digests import content_of
from ..experiment.components import dump
from ..runs.run import Run
from ..storage import checkpoints
from ..storage.files import read_regular, write_atomic
from ..storage.filesystems import lock
from ..support.errors import UserError
from ..support.json_toml import read_json
from .layout import Cell, Model


@dataclass(frozen=True)
class Folder:
    """The folder of a study, and that of its networks, which may be another for several studies to share."""

    path: Path
    models: Path
    _contents: dict[str, list[str] | None] = field(default_factory=dict, compare=False, repr=False)
    """What there is now, by the words of recipes: it is looked at once, for all cells."""

    @classmethod
    def make(cls, path: Path, models: Path | None) -> "Folder":
        """Return the folder, made if it is not there.

        Raises:
            UserError: it cannot be made.
        """
        folder = cls(path, models or path / "models")
        try:
            for part in (folder.models, *(path / name for name in ("cells", "logs", "failed", "locks"))):
                part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from error
        return folder

    def run(self, model: Model) -> Run:
        """Return the run of a network, whether there is one yet or not."""
        return Run(self.models / model.key)

    def cell(self, cell: Cell) -> Path:
        """Return the folder of a cell."""
        return self.path / "cells" / cell.key

    def done(self, one: Model | Cell) -> bool:
        """Return whether a network is trained, or a cell measured."""
        if isinstance(one, Model):
            last = checkpoints.name(one.recipe.train.steps)
            return any(found.name == last for found in checkpoints.list_checkpoints(self.run(one).checkpoints))
        return (self.cell(one) / "cell.json").is_file() and self._is_current(one)

    def _is_current(self, cell: Cell) -> bool:
        """Return whether what was measured of a cell is of the images that there are now, as far as can be told."""
        try:
            measured = self.measured(cell).get("content")
        except UserError:  # whoever reads the numbers is told
            return True
        words = json.dumps([dump(cell.recipe.data), dump(cell.recipe.evaluation.features)], sort_keys=True)
        if measured is not None and words not in self._contents:
            self._contents[words] = content_of(cell.recipe)
        return measured is None or self._contents[words] in (None, measured)

    def measured(self, cell: Cell) -> dict[str, Any]:
        """Return what was written of a cell that is done.

        Raises:
            UserError: the file is damaged.
        """
        file = self.cell(cell) / "cell.json"
        try:
            found: dict[str, Any] = read_json(read_regular(file))
        except (OSError, ValueError) as error:
            raise UserError(f"{file} is damaged ({error}): remove it, and the cell is measured again") from None
        return found

    def log(self, key: str) -> Path:
        """Return the file of what the command says that does it."""
        return self.path / "logs" / f"{key}.txt"

    def failed(self, key: str) -> str | None:
        """Return why it failed the last time, if it did."""
        file = self.path / "failed" / f"{key}.txt"
        return read_regular(file).decode(errors="replace") if file.is_file() else None

    def fail(self, key: str, reason: str | None) -> None:
        """Keep why it failed, or that it did not."""
        file = self.path / "failed" / f"{key}.txt"
        if reason is None:
            file.unlink(missing_ok=True)
        else:
            write_atomic(file, reason.encode())

    @contextmanager
    def alone(self, one: Model | Cell) -> Iterator[None]:
        """Wait until no other process is at it, and keep others waiting."""
        folder = self.models if isinstance(one, Model) else self.path / "locks"
        with (folder / f".{one.key}.lock").open("a") as file:
            lock(file, wait=True)
            yield
