"""The folder of a run: `recipe.json`, `metrics.jsonl`, `checkpoints/`, `grids/`."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import checkpoints
from .problem import Problem
from .reading import override
from .recipe import Recipe

MAY_CHANGE = ("train.steps", "train.patience", "compute.", "checkpoint.", "log.", "grid.")
"""What may differ when a run goes on: how long it is and what is written down, not what is computed."""


@dataclass(frozen=True)
class Run:
    """A run in a folder."""

    folder: Path

    @classmethod
    def find(cls, folder: Path) -> "Run":
        """Return the run in a folder.

        Raises:
            Problem: there is none.
        """
        if not (folder / "recipe.json").is_file():
            raise Problem(f"there is no run in {folder}: `sitkit train RECIPE --out {folder}` makes one")
        return cls(folder)

    @classmethod
    def begin(cls, folder: Path, recipe: Recipe) -> "Run":
        """Return the run of a recipe in a folder, a new one or the one that is there.

        Raises:
            Problem: the folder cannot be written, or holds a run of another recipe.
        """
        run = cls(folder)
        if run.recipe_file.exists():
            differing = [key for key in _differing(run.recipe(), recipe) if not key.startswith(MAY_CHANGE)]
            if differing:
                raise Problem(
                    f"{folder} holds a run of another recipe; give another --out, or undo: {', '.join(differing)}"
                )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(run.recipe_file, json.dumps(recipe.model_dump(mode="json"), indent=2).encode())
        except OSError as error:
            raise Problem(f"{folder} cannot be written: {error.strerror}") from error
        return run

    @property
    def recipe_file(self) -> Path:
        """The recipe's file."""
        return self.folder / "recipe.json"

    @property
    def metrics_file(self) -> Path:
        """The file of one JSON object a record."""
        return self.folder / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    def recipe(self) -> Recipe:
        """Return the run's recipe.

        Raises:
            Problem: the file is no recipe.
        """
        try:
            return override(json.loads(self.recipe_file.read_text()))
        except (OSError, ValueError) as error:
            raise Problem(f"{self.recipe_file} cannot be read: {error}") from error
        except Problem as problem:
            raise Problem(f"{self.recipe_file}: {problem}") from None

    def latest(self) -> Path:
        """Return the newest checkpoint.

        Raises:
            Problem: there is none yet.
        """
        found = checkpoints.latest(self.checkpoints)
        if found is None:
            raise Problem(f"{self.folder} has no checkpoint yet: let `sitkit train` reach one")
        return found

    def metrics(self) -> list[dict[str, Any]]:
        """Return the records that training has written whole."""
        if not self.metrics_file.exists():
            return []
        lines = self.metrics_file.read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]  # a crash may have cut the last one short

    def cut_metrics(self, step: int) -> None:
        """Drop the records after a step."""
        if self.metrics_file.exists():
            kept = [json.dumps(record) + "\n" for record in self.metrics() if record["step"] <= step]
            write_whole(self.metrics_file, "".join(kept).encode())

    def write_metrics(self, record: dict[str, Any]) -> None:
        """Append a record."""
        with self.metrics_file.open("a") as stream:
            stream.write(json.dumps(record) + "\n")


def write_whole(file: Path, content: bytes) -> None:
    """Write a file so that it is there with all its content or as it was before."""
    draft = file.with_name(f".{file.name}.tmp")
    try:
        draft.write_bytes(content)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def _differing(one: Recipe, other: Recipe) -> list[str]:
    """Return the keys, dotted, at which two recipes differ."""
    flat = [_flatten(recipe.model_dump(mode="json")) for recipe in (one, other)]
    return [key for key in flat[0] | flat[1] if flat[0].get(key) != flat[1].get(key)]


def _flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in table.items():
        leaves |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves
