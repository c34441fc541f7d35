"""`sitkit study`: compute the parts of a study that are not done, then write its tables and plots."""

import json
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..experiment.recipe import Recipe
from ..storage.files import write_files
from ..support.progress import progress
from .grid import Cell, Network, StudyGrid, grid_of
from .local_jobs import Job, JobResult, run_jobs
from .plots import plots
from .record import record
from .results import collect
from .study_file import Study, read_study
from .study_folder import StudyFolder
from .tables import markdown, page

TRAINING = 3
"""The cost of a training step, in forward passes of as many images."""
DEFAULT_COUNT = 1000
"""An estimate of the number of samples if it is that of the held-out images."""
PERCENT = 100
CELLS_A_JOB = 8
"""The most cells of a job: starting a process takes as long as evaluating a small network."""
ROUNDS = 4
"""The least number of jobs for each of the processes at once."""


@dataclass(frozen=True)
class StudyRun:
    """A study, its grid and its folder.

    Args:
        study: the study.
        grid: its networks and cells.
        folder: where they are.
        options: further words of the commands that compute its parts.
    """

    study: Study
    grid: StudyGrid
    folder: StudyFolder
    options: Sequence[str]

    @classmethod
    def open(cls, file: Path, out: Path, networks: Path | None, options: Sequence[str]) -> "StudyRun":
        """Return the run of a study's file in a folder.

        Raises:
            UserError: the file is not a study, or the folder cannot be written.
        """
        study = read_study(file)
        return cls(study, grid_of(study), StudyFolder.make(out, networks), options)

    def words(self) -> list[str]:
        """Return the command of the study, without the program."""
        shared = self.folder.networks != self.folder.path / "models"
        models = ["--models", str(self.folder.networks)] if shared else []
        return ["study", str(self.study.file), "--out", str(self.folder.path), *models, *self.options]

    def command(self, keys: Sequence[str]) -> list[str]:
        """Return the command that computes some parts, for any process."""
        only = [word for key in keys for word in ("--only", key)]
        unshadowed = "-P"  # no module of the working directory hides another
        return [sys.executable, unshadowed, "-m", "sitkit.recipes", *self.words(), *only]

    def open_parts(self) -> tuple[dict[str, Network], dict[str, Cell]]:
        """Return the cells that are not done, and the networks that they need and that are not done, by key."""
        cells = {key: cell for key, cell in self.grid.cells.items() if not self.folder.done(cell)}
        wanted = {cell.network.key: cell.network for cell in cells.values()}
        return {key: network for key, network in wanted.items() if not self.folder.done(network)}, cells


def list_parts(run: StudyRun) -> list[str]:
    """Return a line for each network and cell: its key, its state, and its name."""
    lines = []
    parts: dict[str, Network | Cell] = {**run.grid.networks, **run.grid.cells}
    for key, part in parts.items():
        failure = run.folder.failure(key)
        state = "done" if run.folder.done(part) else "failed" if failure else "open"
        kind = "network" if isinstance(part, Network) else f"cell of {part.network.key}"
        lines.append(f"{key}  {state:6}  {kind:20}  {run.grid.names[key]}" + (f"  ({failure})" if failure else ""))
    return lines


def run_study(run: StudyRun, at_once: int, say: Callable[[str], None]) -> bool:
    """Compute the open parts of a study in processes of this machine, write its results; return whether none failed.

    Raises:
        UserError: the results cannot be written.
        KeyboardInterrupt: it was interrupted; completed work is stored.
    """
    networks, cells = run.open_parts()
    jobs = [*jobs_of(networks, cells, at_once)]
    total = sum(job.cost for job in jobs)
    failures: dict[str, str] = {}
    spent, shown = 0.0, 0
    with progress("study", PERCENT, unit="%", quiet=not jobs) as advance:

        def report(result: JobResult) -> None:
            nonlocal spent, shown
            if result.failure is not None:
                failures[result.key] = result.failure
                run.folder.set_failure(result.key, result.failure)
            networks.pop(result.key, None)
            cells.pop(result.key, None)
            spent += result.cost
            percent = round(PERCENT * spent / total)
            failed = f", {len(failures)} failed" if failures else ""
            advance(percent - shown, f"{len(networks)} networks and {len(cells)} cells to go{failed}")
            shown = percent

        run_jobs(jobs, at_once, run.command, run.folder.log, report)
    _write(run, failures, at_once, say)
    return not failures


def jobs_of(networks: Mapping[str, Network], cells: Mapping[str, Cell], at_once: int) -> Iterator[Job]:
    """Give a job for each network, then one for several cells of a network, fewer if a process would be idle."""
    for key, network in networks.items():
        yield Job((key,), None, _training_cost(network.recipe))
    size = min(CELLS_A_JOB, math.ceil((len(networks) + len(cells)) / (ROUNDS * at_once)))
    groups: dict[str, list[Cell]] = {}
    for cell in cells.values():
        groups.setdefault(cell.network.key, []).append(cell)
    for network_key, group in groups.items():
        for first in range(0, len(group), size):
            some = group[first : first + size]
            cost = sum(_evaluation_cost(cell.recipe) for cell in some)
            yield Job(tuple(cell.key for cell in some), network_key, cost)


def _training_cost(recipe: Recipe) -> float:
    """Return about how many network rows a training computes."""
    return float(TRAINING * recipe.train.steps * recipe.train.batch)


def _evaluation_cost(recipe: Recipe) -> float:
    """Return about how many network rows an evaluation computes."""
    count = DEFAULT_COUNT if recipe.evaluation.num == "auto" else recipe.evaluation.num
    return float(recipe.evaluation.draws * count * recipe.sampler.steps * (2 if recipe.guidance.scale != 1 else 1))


def _write(run: StudyRun, failures: Mapping[str, str], at_once: int, say: Callable[[str], None]) -> None:
    """Write `study.json`, `study.md`, `study.html` and the plots of all that is done, and report what failed.

    Raises:
        UserError: they cannot be written.
    """
    for key, why in failures.items():
        say(f"failed: {key} ({run.grid.names[key]}): {why}")
    results = collect(run.study, run.grid, run.folder)
    command = shlex.join(["sitkit", *run.words(), *(["--jobs", str(at_once)] if at_once > 1 else [])])
    table = record(results, run.grid, run.folder, failures, command)
    pngs = plots(results)
    files = {metric: f"{_file_name(metric)}.png" for metric in pngs}
    texts = {
        "study.json": json.dumps(table, indent=2) + "\n",
        "study.md": markdown(results, table, files),
        "study.html": page(results, table, pngs),
    }
    path = run.folder.path
    write_files(path, {files[metric]: png for metric, png in pngs.items()} | {k: v.encode() for k, v in texts.items()})
    say(f"{len(table['rows'])} of {len(run.grid.points)} combinations measured: {path / 'study.html'}")


def _file_name(metric: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in metric.lower()).split())
