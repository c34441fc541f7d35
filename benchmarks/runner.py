"""Runs a benchmark cell by cell; finished cells are not run again."""

import json
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from methods import Method
from problem import Axes, Options, OverBudget
from tasks import SEARCH_SEED, Setting, Task

from sitkit.recipes.storage.files import write_atomic
from sitkit.recipes.support.progress import Advance

Record = dict[str, Any]
SEARCHED = 50
"""Above this NFE only the options that were best at lower NFE are tried."""
KEYS = ("task", "world", "path", "w", "contender", "options", "calls", "seed", "count")


class RecordStore:
    """Records in a file, one JSON object per line; an incomplete last line is removed."""

    def __init__(self, file: Path):
        self.file = file
        self.records: dict[str, Record] = {}
        if file.exists():
            content = file.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                os.truncate(file, len(whole))
            for line in whole.splitlines():
                self._keep(json.loads(line))

    def find(self, cell: Record) -> Record | None:
        """Return the record of a cell, if it exists."""
        return self.records.get(_key(cell))

    def add(self, record: Record) -> None:
        """Write a record."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as stream:
            stream.write(json.dumps(record) + "\n")
        self._keep(record)

    def forget(self, method: str) -> int:
        """Delete the records of a method whose code has changed, and return their number."""
        remaining = {key: record for key, record in self.records.items() if record["contender"] != method}
        dropped = len(self.records) - len(remaining)
        self.records = remaining
        write_atomic(self.file, "".join(json.dumps(record) + "\n" for record in remaining.values()).encode())
        return dropped

    def _keep(self, record: Record) -> None:
        self.records[_key(record)] = record


def _key(record: Record) -> str:
    return json.dumps([record[name] for name in KEYS], sort_keys=True)


@dataclass(frozen=True)
class BenchmarkRunner:
    """Runs tasks and stores their records.

    Args:
        store: the records.
        searches: whether options are searched for.
    """

    store: RecordStore
    searches: bool = True

    def run(self, task: Task, methods: Iterable[Method], advance: Advance) -> None:
        """Run a task: for each panel, method and NFE search for options, then run all seeds."""
        for setting in task.settings():
            for method in methods:
                if setting.w not in method.solves:
                    continue
                chosen: list[Options] = []
                for calls in task.calls(setting):
                    self._run_cells(task, setting, method, calls, chosen)
                    advance(1, note=f"{setting.world} {setting.path} {setting.w} {method.name}, {calls} calls")

    def _run_cells(self, task: Task, setting: Setting, method: Method, calls: int, chosen: list[Options]) -> None:
        """Search for options, run all seeds, and append the best options to `chosen`."""
        sizes, axes = task.sizes(setting), method.choices(setting.w)

        def error(options: Options) -> float:
            found = self.cell(task, setting, method, options, calls, SEARCH_SEED, sizes.search)["error"]
            return math.inf if found is None else float(found)

        candidates = [default_options(axes), *self._borrowed(task, setting, method, calls), *chosen]
        candidates = [one for place, one in enumerate(candidates) if one not in candidates[:place]]
        options = min(candidates, key=error) if len(candidates) > 1 else candidates[0]
        if not task.borrows and calls <= SEARCHED and self.searches:
            options = search(axes, options, error, 1 if chosen else 2)
        chosen.append(options)
        for seed in range(sizes.seeds):
            self.cell(task, setting, method, options, calls, seed, sizes.count)

    def _borrowed(self, task: Task, setting: Setting, method: Method, calls: int) -> list[Options]:
        """Return the best options of other tasks, at the nearest NFE."""
        found = []
        for other in task.borrows:
            alike = [
                record
                for record in self.store.records.values()
                if (record["task"], record["path"], record["w"], record["contender"])
                == (other, setting.path, setting.w, method.name)
                and record["seed"] != SEARCH_SEED
                and record["error"] is not None
            ]
            for world in sorted({record["world"] for record in alike}):
                there = [record for record in alike if record["world"] == world]
                found.append(min(there, key=lambda record: abs(math.log(record["calls"] / calls)))["options"])
        return found

    def cell(
        self,
        task: Task,
        setting: Setting,
        method: Method,
        options: Options,
        calls: int,
        seed: int,
        count: int,
    ) -> Record:
        """Return the record of a cell, run if missing; its error is None if it needs more NFE or is not finite."""
        cell: Record = {
            "task": task.name,
            **asdict(setting),
            "contender": method.name,
            "options": options,
            "calls": calls,
            "seed": seed,
            "count": count,
        }
        found = self.store.find(cell)
        if found is not None:
            return found
        start = time.perf_counter()
        error: float | None
        try:
            error, made = task.measure(setting, method.draw, options, calls, seed, count)
        except OverBudget:
            error, made = None, 0
        if made > calls:
            raise AssertionError(f"{method.name} made {made} calls of {calls}")
        if error is not None and not math.isfinite(error):
            error = None
        record = {**cell, "error": error, "made": made, "seconds": round(time.perf_counter() - start, 4)}
        self.store.add(record)
        return record


def default_options(axes: Axes) -> Options:
    """Return the first value of each choice."""
    return {name: values[0] for name, values in axes.items()}


def search(axes: Axes, start: Options, error: Callable[[Options], float], passes: int) -> Options:
    """Return options of low error by coordinate search: one choice at a time, until nothing changes."""
    best = start
    for _ in range(passes):
        before = best
        for name, values in axes.items():
            if len(values) > 1:
                best = min(({**best, name: value} for value in values), key=error)
        if best == before:
            break
    return best
