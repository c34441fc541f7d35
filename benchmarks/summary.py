"""Summaries of records: for each panel, method and NFE the mean error over seeds."""

import math
from collections import defaultdict
from collections.abc import Iterable
from statistics import mean, stdev
from typing import Any

from runner import Record
from tasks import SEARCH_SEED, Setting, Task

STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""The 97.5 % quantile of Student's t for 1, 2, ... degrees of freedom."""


def summarise(task: Task, records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return a row for each path, equation, method and NFE.

    Squares of errors (Frechet distances as they are, for they are squares already) are averaged over worlds and seeds,
    less the square of the floor; the row's error is the root, `low` and `high` are those of the 95 % interval over
    seeds. If `low` is 0, no error was detected, and `high` is an upper bound. Only cells of the best options
    count.
    """
    settings = set(task.settings())
    cells: dict[tuple[Setting, str, int], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        setting = Setting(record["world"], record["path"], record["w"])
        wanted = setting in settings and record["calls"] in task.calls(setting)
        if record["task"] != task.name or not wanted or record["seed"] == SEARCH_SEED:
            continue
        sizes = task.sizes(setting)
        if record["count"] != sizes.count or record["seed"] >= sizes.seeds or record["error"] is None:
            continue
        cells[setting, record["contender"], record["calls"]][str(record["options"])].append(record)
    panels: dict[tuple[str, str, str, int], dict[str, list[Record]]] = defaultdict(dict)
    for (setting, method, calls), by_options in cells.items():
        whole = [found for found in by_options.values() if len(found) == task.sizes(setting).seeds]
        if whole:
            best = min(whole, key=lambda found: mean(record["error"] for record in found))
            panels[setting.path, setting.w, method, calls][setting.world] = sorted(best, key=lambda r: r["seed"])
    worlds = {(s.path, s.w): sum((s.path, s.w) == (o.path, o.w) for o in settings) for s in settings}
    return [
        {"task": task.name, "path": path, "w": w, "contender": method, "calls": calls, **_row(task, path, w, found)}
        for (path, w, method, calls), found in sorted(panels.items())
        if len(found) == worlds[path, w]
    ]


def _row(task: Task, path: str, w: str, found: dict[str, list[Record]]) -> dict[str, Any]:
    power = task.power
    floors = {world: task.floor(Setting(world, path, w)) for world in found}
    excess = {
        world: [r["error"] ** power - floors[world] ** power for r in records] for world, records in found.items()
    }
    powers = [mean(values) for values in zip(*excess.values(), strict=True)]
    return {
        **_interval(powers, power),
        "made": max(record["made"] for records in found.values() for record in records),
        "seeds": len(powers),
        "worlds": {
            world: {
                **_interval(excess[world], power),
                "total": mean(r["error"] ** power for r in records) ** (1 / power),
                "floor": floors[world],
                "options": records[0]["options"],
            }
            for world, records in found.items()
        },
    }


def _interval(powers: list[float], power: int) -> dict[str, float]:
    middle = mean(powers)
    half = STUDENT[min(len(powers) - 2, 8)] * stdev(powers) / math.sqrt(len(powers)) if len(powers) > 1 else 0.0
    values = {"error": middle, "low": middle - half, "high": max(middle, 0.0) + half}
    return {name: max(value, 0.0) ** (1 / power) for name, value in values.items()}


def table(rows: list[dict[str, Any]], path: str, w: str, calls: tuple[int, ...]) -> str:
    """Return a panel in Markdown: methods in rows, NFE in columns, sorted by mean log error."""
    found: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        if (row["path"], row["w"]) == (path, w):
            found[row["contender"]][row["calls"]] = row
    shown = [n for n in calls if any(n in by_calls for by_calls in found.values())]
    lines = ["| calls | " + " | ".join(map(str, shown)) + " |", "| --- |" + " ---: |" * len(shown)]
    for method in sorted(found, key=lambda name: _rank(found, name)):
        entries = [_entry(found[method].get(n)) for n in shown]
        lines.append(f"| {method} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def _rank(found: dict[str, dict[int, dict[str, Any]]], name: str) -> float:
    """Return the mean logarithm of a method's error, over that of the best at the same number of calls."""
    ratios = []
    for n, row in found[name].items():
        best = min(by_calls[n]["high"] for by_calls in found.values() if n in by_calls)
        ratios.append(math.log(max(row["high"], 1e-300) / max(best, 1e-300)))
    return mean(ratios)


def _entry(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{row['error']:.2g}" if row["low"] > 0 else f"< {row['high']:.2g}"
