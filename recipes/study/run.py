"""What `sitkit study` does: all that is not done yet of a study, then its tables and plots."""

import json
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..experiment.recipe import Recipe
from ..storage.files import write_atomic
from ..support.errors import UserError
from ..support.progress import progress
from .definition import Study, read_study
from .folder import Folder
from .layout import Cell, Layout, Model, lay_out
from .local_jobs import Ended, Job, run_all
from .plots import plots
from .record import record
from .results import collect
from .tables import markdown, page

TRAINING = 3
"""What a step of training costs, in calls of the network on as many images."""
UNKNOWN_COUNT = 1000
"""Images that are drawn, for want of knowledge, where as many are as are held out."""
PERCENT = 100
TOGETHER = 8
"""The most cells that a process measures: imports and compilers take as long as small networks do."""
ROUNDS = 4
"""How many jobs, at least, each of the processes at once should find."""


@dataclass(frozen=True)
class Work:
    """A study, laid out, with its folder, and how it is to be done.

    Args:
        study: the study.
        layout: its networks and cells.
        folder: where they are.
        options: words that the commands of its parts take besides.
    """

    study: Study
    layout: Layout
    folder: Folder
    options: Sequence[str]

    @classmethod
    def open(cls, file: Path, out: Path, models: Path | None, options: Sequence[str]) -> "Work":
        """Return the work of a study's file in a folder.

        Raises:
            UserError: the file is no study, or the folder cannot be written.
        """
        study = read_study(file)
        return cls(study, lay_out(study), Folder.make(out, models), options)

    @property
    def parts(self) -> dict[str, Model | Cell]:
        """Networks, then cells, by key."""
        return {**self.layout.models, **self.layout.cells}

    def words(self) -> list[str]:
        """Return the command of this study, without the program."""
        shared = [] if self.folder.models == self.folder.path / "models" else ["--models", str(self.folder.models)]
        return ["study", str(self.study.file), "--out", str(self.folder.path), *shared, *self.options]

    def words_of(self, *keys: str) -> list[str]:
        """Return the command that does some parts, for any process."""
        only = [word for key in keys for word in ("--only", key)]
        unshadowed = "-P"  # no module of the working directory stands before others
        return [sys.executable, unshadowed, "-m", "sitkit.recipes", *self.words(), *only]

    def open_parts(self) -> dict[str, Model | Cell]:
        """Return what is to be done still: no network of which no cell is open."""
        cells = {key: cell for key, cell in self.layout.cells.items() if not self.folder.done(cell)}
        wanted = {cell.model.key: cell.model for cell in cells.values()}
        return {**{key: model for key, model in wanted.items() if not self.folder.done(model)}, **cells}


def list_parts(work: Work) -> list[str]:
    """Return a line for each network and cell: key, state, and what it is."""
    lines = []
    for key, one in work.parts.items():
        failed = work.folder.failed(key)
        state = "done" if work.folder.done(one) else "failed" if failed else "open"
        sort = "network" if isinstance(one, Model) else f"cell of {one.model.key}"
        lines.append(f"{key}  {state:6}  {sort:20}  {work.layout.names[key]}" + (f"  ({failed})" if failed else ""))
    return lines


def run_study(work: Work, jobs: int, say: Callable[[str], None]) -> bool:
    """Do what is open of a study in processes of this machine, write its results, and return whether nothing failed.

    Raises:
        UserError: the results cannot be written.
        KeyboardInterrupt: it was told to stop; what is done is kept.
    """
    failed: dict[str, str] = {}
    parts = work.open_parts()
    todo = [*jobs_of(work, parts, jobs)]
    whole = sum(job.work for job in todo)
    spent, shown = 0.0, 0
    left = {Model: sum(key in work.layout.models for key in parts), Cell: 0}
    left[Cell] = len(parts) - left[Model]
    with progress("study", PERCENT, unit="%", quiet=not todo) as advance:

        def tell(ended: Ended) -> None:
            nonlocal spent, shown
            key = ended.job.key
            if ended.failure is not None:
                failed[key] = ended.failure
                work.folder.fail(key, ended.failure)
            left[type(work.parts[key])] -= len(ended.job.others) or 1
            spent += ended.job.work
            percent = int(PERCENT * spent / whole)
            note = f"{left[Model]} networks and {left[Cell]} cells to go" + (
                f", {len(failed)} failed" if failed else ""
            )
            advance(percent - shown, note)
            shown = percent

        if todo:
            run_all(todo, jobs, tell)
    finish(work, failed, jobs, say)
    return not failed


def finish(work: Work, failed: dict[str, str], jobs: int, say: Callable[[str], None]) -> None:
    """Write `study.json`, `study.md`, `study.html` and the plots of all that is done, and say what failed.

    Raises:
        UserError: they cannot be written.
    """
    for key, why in failed.items():
        say(f"failed: {key} ({work.layout.names[key]}): {why}")
    results = collect(work.study, work.layout, work.folder)
    command = shlex.join(["sitkit", *work.words(), *(["--jobs", str(jobs)] if jobs > 1 else [])])
    found = record(results, work.layout, work.folder, failed, command)
    pictures = plots(results)
    files = {number: f"{_file_name(number)}.png" for number in pictures}
    path = work.folder.path
    try:
        for number, png in pictures.items():
            write_atomic(path / files[number], png)
        write_atomic(path / "study.json", (json.dumps(found, indent=2) + "\n").encode())
        write_atomic(path / "study.md", markdown(results, found, files).encode())
        write_atomic(path / "study.html", page(results, found, pictures).encode())
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    say(f"{len(found['rows'])} of {len(work.layout.places)} places measured: {path / 'study.html'}")


def _file_name(number: str) -> str:
    """Return a number's name as that of a file."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in number.lower()).split())


def jobs_of(work: Work, parts: Mapping[str, Model | Cell], at_once: int) -> Iterator[Job]:
    """Give a job for each network, and then for some cells of each, fewer if all could not be busy to the end."""
    size = min(TOGETHER, math.ceil(len(parts) / (ROUNDS * at_once)))
    cells: dict[str, list[Job]] = {}
    for key, one in parts.items():
        if isinstance(one, Model):
            yield Job(key, work.words_of(key), work.folder.log(key), None, _training(one.recipe))
        else:
            job = Job(key, work.words_of(key), work.folder.log(key), one.model.key, _measuring(one.recipe))
            cells.setdefault(one.model.key, []).append(job)
    for network, alone in cells.items():
        for first in range(0, len(alone), size):
            some = tuple(alone[first : first + size])
            keys = [job.key for job in some]
            cost = sum(job.work for job in some)
            yield some[0] if len(some) == 1 else Job(keys[0], work.words_of(*keys), some[0].log, network, cost, some)


def _training(recipe: Recipe) -> float:
    """Return about how many rows a training asks of a network: what progress is measured in."""
    return float(TRAINING * recipe.train.steps * recipe.train.batch)


def _measuring(recipe: Recipe) -> float:
    """Return about how many rows a measurement asks of a network."""
    num = recipe.evaluation.num
    count = UNKNOWN_COUNT if num == "auto" else num
    return float(recipe.evaluation.draws * count * recipe.sampler.steps * (2 if recipe.guidance.scale != 1 else 1))
