"""The folder of a run: `recipe.json`, `data.json`, `metrics.jsonl`, `checkpoints/`, `grids/`."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.images import Split
from ..experiment import slots
from ..experiment.components import Component
from ..experiment.read_recipe import recipe_from_stored
from ..experiment.recipe import Recipe
from ..storage import checkpoints
from ..storage.files import read_inside, write_atomic
from ..storage.filesystems import lock
from ..storage.json_lines import append_record, read_records
from ..support.errors import UserError
from ..support.json_toml import read_json
from ..support.trust import TRUST_NOTHING, Trust
from .data_record import FILE_NAME as DATA
from .data_record import DataRecord, join_differences, open_data
from .resume import check_can_resume, starts_skipping_unreadable

Say = Callable[[str], None]


def print_to_stderr(line: str) -> None:
    """Print a line to standard error."""
    print(line, file=sys.stderr)


@dataclass(frozen=True)
class Run:
    """A run: its folder and the files in it."""

    folder: Path

    @classmethod
    def find(cls, folder: Path) -> "Run":
        """Return the run in a folder.

        Raises:
            UserError: the folder holds no run.
        """
        if not (folder / "recipe.json").is_file():
            raise UserError(f"there is no run in {folder}: `sitkit train RECIPE --out {folder}` creates one")
        return cls(folder)

    @classmethod
    @contextmanager
    def open_for_training(
        cls, folder: Path, recipe: Recipe, split: Split, trust: Trust = TRUST_NOTHING
    ) -> Iterator["Run"]:
        """Create a run in a folder, or resume the one that is there, and lock it for this process.

        Args:
            folder: the run's folder.
            recipe: the recipe to train.
            split: the recipe's data. A new run records them; those of an existing run are compared with its record.
            trust: the code that the stored recipe may name, besides the code that `recipe` names.

        Raises:
            UserError: the folder cannot be written, another process is training in it, or it holds a run of another
                recipe or of other data.
        """
        run = cls(folder)
        with ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                if not lock(stack.enter_context((folder / ".lock").open("a"))):
                    raise UserError(f"another process is training in {folder}: wait for it, or give another --out")
                stored = run.recipe(trust | Trust.of(recipe)) if run.recipe_file.exists() else None
                record = run.data_record() if stored else None
                skips = stored is not None and starts_skipping_unreadable(stored, recipe)
                if stored is not None:
                    check_can_resume(stored, recipe, folder, paths=record is not None, skips=skips)
                if record is not None or stored is None:
                    run._update_record(record, recipe.data, split, skips)
                write_atomic(run.recipe_file, json.dumps(recipe.model_dump(mode="json"), indent=2).encode())
            except OSError as error:
                raise UserError(f"{folder} cannot be written: {error.strerror}") from error
            yield run

    @property
    def recipe_file(self) -> Path:
        """The file of the recipe."""
        return self.folder / "recipe.json"

    @property
    def metrics_file(self) -> Path:
        """The file of metrics: one JSON object for each record."""
        return self.folder / "metrics.jsonl"

    @property
    def skipped_file(self) -> Path:
        """The file of skipped steps: one JSON object for each."""
        return self.folder / "skipped.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    def recipe(self, trust: Trust = TRUST_NOTHING) -> Recipe:
        """Return the run's recipe.

        Args:
            trust: the code outside of sitkit that it may name; a run may come from anywhere.

        Raises:
            UserError: the file holds no valid recipe, or names code that is not trusted.
        """
        try:
            return recipe_from_stored(read_json(read_inside(self.folder, self.recipe_file.name)), trust)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.recipe_file} cannot be read: {error}") from error
        except UserError as problem:
            raise UserError(f"{self.recipe_file}: {problem}") from None

    def data_record(self) -> DataRecord | None:
        """Return the record of the run's data; None if the run was created by a version that wrote none.

        Raises:
            UserError: the file is damaged.
        """
        try:
            return DataRecord.read(read_inside(self.folder, DATA))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(f"{self.folder / DATA} is damaged ({error}): copy it again, or remove it") from None

    def data(self, recipe: Recipe, *, images: bool = True, heldout: bool = False, say: Say = print_to_stderr) -> Split:
        """Load the data of a run and compare them with its record.

        Args:
            recipe: the run's recipe, with the present paths of its data.
            images: whether images are needed. If not, the record is enough, and no data are loaded.
            heldout: whether held-out images are needed: a line reports if they have changed since the run was created.
            say: takes lines for the user.

        Raises:
            UserError: the data cannot be loaded, or differ from those that the run was created with.
        """
        record = self.data_record()
        needed = images or recipe.source is not None or slots.needs_loss_curve(recipe.sampler.w)
        if record is not None and not needed and (known := record.split(recipe.data)) is not None:
            return known
        split = open_data(recipe.data, record)
        if record is None:
            if recipe.data.kind != "absent":
                say(f"{self.folder} was created by an earlier version, without a record of its data: not compared")
            return split
        self._compare(record, recipe.data, split)
        if heldout and (found := record.differences(split, heldout=True)):
            differ = join_differences(found)
            say(f"{self.folder}: the held-out images have changed since the run was created: {differ}")
        return split

    def _compare(self, record: DataRecord, data: Component, split: Split) -> None:
        if found := record.differences(split):
            place = ", give their location with --set data.path=DIR" if "path" in type(data.fields).model_fields else ""
            trained = f"fine-tune another run with --set train.init={self.folder}"
            is_trained = checkpoints.list_checkpoints(self.checkpoints)
            way = trained if is_trained else "give another --out: it has no checkpoint yet"
            raise UserError(
                f"{self.folder} was created with other data: {join_differences(found)}; restore them{place}, or {way}"
            )

    def _update_record(self, record: DataRecord | None, data: Component, split: Split, skips: bool) -> None:
        """Compare data with their record. Write it if it is new or paths have changed.

        With `skips`, unreadable images are left out from now on, so there may be fewer.
        """
        if record is None:
            written = DataRecord.of(data, split)
        else:
            if skips:
                record = record.without_unreadable(split)
            self._compare(record, data, split)
            written = record.moved(data, split)
        if written != record or skips:
            write_atomic(self.folder / DATA, written.model_dump_json(indent=2).encode())

    def complete_record(self, data: Component, split: Split, say: Say) -> None:
        """Write the record of the data of a run that a version without records created, once its weights fit the data.

        Raises:
            UserError: the file cannot be written.
        """
        if self.data_record() is not None:
            return
        say(f"{self.folder} was created by an earlier version, without a record of its data: it is written now")
        try:
            self._update_record(None, data, split, skips=False)
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written: {error.strerror}") from error

    def latest(self) -> Path:
        """Return the newest checkpoint that is not damaged.

        Raises:
            UserError: there is none.
        """
        found = checkpoints.newest(self.checkpoints)
        if found is None:
            which = "good checkpoint" if checkpoints.list_checkpoints(self.checkpoints) else "checkpoint yet"
            raise UserError(f"{self.folder} has no {which}: run `sitkit train` until it saves one")
        return found

    def metrics(self) -> list[dict[str, Any]]:
        """Return the records of metrics; one that was written in part is left out."""
        return read_records(self.metrics_file)

    def skipped(self) -> list[dict[str, Any]]:
        """Return the records of steps that were skipped because loss or gradient were not finite."""
        return read_records(self.skipped_file)

    def cut_metrics(self, step: int) -> None:
        """Drop the records of later steps.

        Raises:
            UserError: the files cannot be written.
        """
        for file in (self.metrics_file, self.skipped_file):
            if file.exists():
                lines = [json.dumps(record) + "\n" for record in read_records(file) if record["step"] <= step]
                try:
                    write_atomic(file, "".join(lines).encode())
                except OSError as error:
                    raise UserError(f"{file} cannot be written: {error.strerror}") from error

    def write_metrics(self, record: dict[str, Any]) -> None:
        """Append a record to the metrics.

        Raises:
            UserError: the file cannot be written.
        """
        append_record(self.metrics_file, record)

    def write_skipped(self, record: dict[str, Any]) -> None:
        """Append a record of a skipped step.

        Raises:
            UserError: the file cannot be written.
        """
        append_record(self.skipped_file, record)
