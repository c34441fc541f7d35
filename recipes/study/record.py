"""`study.json`: all results of a study as plain values, with what they depend on."""

from collections.abc import Mapping
from typing import Any

from ..support.environment import machine, versions
from .grid import GridPoint, StudyGrid
from .parts import REPORTED
from .published import compare
from .results import ResultRow, StudyResults
from .study_folder import StudyFolder


def record(
    results: StudyResults, grid: StudyGrid, folder: StudyFolder, failures: Mapping[str, str], command: str
) -> dict[str, Any]:
    """Return the content of `study.json`; `failures` are by key, `command` is the one that wrote it."""
    study, comparison = results.study, compare(results)
    done = [point for point in grid.points if folder.done(point.cell)]
    return {
        "study": {**study.content.model_dump(mode="json"), "title": study.title},
        "command": command,
        "versions": versions(),
        "machine": machine(),
        "hours": _hours(grid, folder),
        "rows": [_point(results, point, folder.measured(point.cell)) for point in done],
        "table": [_row(results, row) for row in results.rows],
        **({"published": comparison.describe()} if comparison else {}),
        "failed": [{"key": key, "what": grid.names[key], "why": why} for key, why in failures.items()],
    }


def _point(results: StudyResults, point: GridPoint, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a measured point: its axes, its seed, and its metrics."""
    numbers = {name: found["numbers"][name] for name in results.metrics if name in found["numbers"]}
    return {axis.name: variant.value for axis, variant in zip(results.axes, point.variants, strict=True)} | {
        "seed": point.seed,
        "network": point.cell.network.key,
        "cell": point.cell.key,
        "sampling_seed": point.cell.sampling_seed,
        "calls": found["calls"],
        "network_rows": found["network_rows"],
        "numbers": {name: {key: number.get(key) for key in REPORTED} for name, number in numbers.items()},
        "report": f"cells/{point.cell.key}/report.json",
    }


def _row(results: StudyResults, row: ResultRow) -> dict[str, Any]:
    """Return a row of the table: its axes, and its metrics over seeds."""
    numbers = {}
    for name, entry in row.entries.items():
        behind = results.behind(row, name)
        numbers[name] = {
            **entry.mean.describe(),
            "seeds": len(entry.values),
            "real": entry.real,
            "best": results.best.get(name) is row,
            "behind_best": behind and {**behind.describe(), "beyond": behind.significant},
        }
    return {**row.values, "calls": row.calls, "numbers": numbers}


def _hours(grid: StudyGrid, folder: StudyFolder) -> dict[str, float]:
    """Return the hours of training and of evaluation, as if one after the other."""
    training = 0.0
    for network in grid.networks.values():
        seconds = [float(one.get("seconds", 0.0)) for one in folder.run(network).metrics()]
        # They count from the start of a process: before each fall one was interrupted.
        training += sum(one for one, following in zip(seconds, [*seconds[1:], 0.0], strict=True) if following < one)
    measuring = sum(float(folder.measured(cell)["seconds"]) for cell in grid.cells.values() if folder.done(cell))
    return {"training": training / 3600, "measuring": measuring / 3600}
