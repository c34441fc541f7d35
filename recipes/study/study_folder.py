"""The folder of a study: what is done, what failed, and the files of each part.

`models/KEY/` is the run of a network, and `cells/KEY/` the evaluation of a cell, which is done if `cell.json` is there
and was measured with the current images. `logs/KEY.txt` is the output of the command that last computed a part, and
`failed/KEY.txt` its error, if it failed.
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
from .grid import Cell, Network


@dataclass(frozen=True)
class StudyFolder:
    """The folder of a study, and that of its networks, which several studies may share."""

    path: Path
    networks: Path
    _digests: dict[str, list[str] | None] = field(default_factory=dict, compare=False, repr=False)
    """Digests of the current images, by data and features: they are read once for all cells."""

    @classmethod
    def make(cls, path: Path, networks: Path | None) -> "StudyFolder":
        """Return the folder, and create it if needed.

        Raises:
            UserError: it cannot be written.
        """
        folder = cls(path, networks or path / "models")
        try:
            for part in (folder.networks, *(path / name for name in ("cells", "logs", "failed", "locks"))):
                part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from error
        return folder

    def run(self, network: Network) -> Run:
        """Return the run of a network, which may not exist yet."""
        return Run(self.networks / network.key)

    def cell(self, cell: Cell) -> Path:
        """Return the folder of a cell."""
        return self.path / "cells" / cell.key

    def log(self, key: str) -> Path:
        """Return the log file of a part."""
        return self.path / "logs" / f"{key}.txt"

    def done(self, part: Network | Cell) -> bool:
        """Return whether a network is trained, or a cell evaluated with the current images."""
        if isinstance(part, Network):
            last = checkpoints.name(part.recipe.train.steps)
            return any(found.name == last for found in checkpoints.list_checkpoints(self.run(part).checkpoints))
        if not (self.cell(part) / "cell.json").is_file():
            return False
        try:
            before = self.measured(part).get("content")
        except UserError:  # reading the numbers raises it
            return True
        data = json.dumps([dump(part.recipe.data), dump(part.recipe.evaluation.features)], sort_keys=True)
        if before is not None and data not in self._digests:
            self._digests[data] = content_of(part.recipe)
        return before is None or self._digests[data] in (None, before)

    def measured(self, cell: Cell) -> dict[str, Any]:
        """Return the content of `cell.json`.

        Raises:
            UserError: the file is damaged.
        """
        file = self.cell(cell) / "cell.json"
        try:
            found: dict[str, Any] = read_json(read_regular(file))
        except (OSError, ValueError) as error:
            raise UserError(f"{file} is damaged ({error}): remove it, and the cell is measured again") from None
        return found

    def failure(self, key: str) -> str | None:
        """Return why a part failed the last time, if it did."""
        file = self.path / "failed" / f"{key}.txt"
        return read_regular(file).decode(errors="replace") if file.is_file() else None

    def set_failure(self, key: str, reason: str | None) -> None:
        """Record why a part failed, or that it did not."""
        file = self.path / "failed" / f"{key}.txt"
        if reason is None:
            file.unlink(missing_ok=True)
        else:
            write_atomic(file, reason.encode())

    @contextmanager
    def locked(self, part: Network | Cell) -> Iterator[None]:
        """Wait until no other process computes a part, and let others wait."""
        folder = self.networks if isinstance(part, Network) else self.path / "locks"
        with (folder / f".{part.key}.lock").open("a") as file:
            lock(file, wait=True)
            yield
