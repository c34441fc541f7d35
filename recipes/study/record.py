"""`study.json`: everything that a study found, as plain values, with what it depends on."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from .folder import Folder
from .layout import Layout, Place
from .published import as_values, compare
from .results import Results, Row

KEPT = ("mean", "spread", "values", "real")
"""What is kept of each number: mean and standard deviation over draws, a value for each, and that of real images."""


def record(results: Results, layout: Layout, folder: Folder, failed: Mapping[str, str], command: str) -> dict[str, Any]:
    """Return the content of `study.json`.

    Args:
        results: what was found.
        layout: of the study.
        folder: where its parts lie.
        failed: why each cell or network failed that did, by key.
        command: that made it.
    """
    study, comparison = results.study, compare(results)
    return {
        "study": {**study.written.model_dump(mode="json"), "title": study.title},
        "command": command,
        "versions": {name: version(name) for name in ("sitkit", "torch", "numpy")}
        | {"python": platform.python_version()},
        "machine": machine(),
        "hours": hours(layout, folder),
        "rows": [
            _place(results, place, folder.measured(place.cell)) for place in layout.places if folder.done(place.cell)
        ],
        "table": [_row(results, row) for row in results.rows],
        **({"published": as_values(comparison)} if comparison else {}),
        "failed": [{"key": key, "what": layout.names[key], "why": why} for key, why in failed.items()],
    }


def _place(results: Results, place: Place, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a measured place: its axes, its seed, and its numbers."""
    values = {axis.name: variant.value for axis, variant in zip(results.axes, place.variants, strict=True)}
    numbers = {name: found["numbers"][name] for name in results.numbers if name in found["numbers"]}
    return values | {
        "seed": place.seed,
        "network": place.cell.model.key,
        "cell": place.cell.key,
        "sampling_seed": place.cell.sampling_seed,
        "calls": found["calls"],
        "network_rows": found["network_rows"],
        "numbers": {name: {key: number.get(key) for key in KEPT} for name, number in numbers.items()},
        "report": f"cells/{place.cell.key}/report.json",
    }


def _row(results: Results, row: Row) -> dict[str, Any]:
    """Return a row of the table: its axes, and its numbers over seeds."""
    numbers = {}
    for name, entry in row.entries.items():
        behind = results.behind(row, name)
        numbers[name] = {
            "mean": entry.mean.value,
            "standard_error": entry.mean.error,
            "seeds": len(entry.values),
            "real": entry.real,
            "best": results.best.get(name) is row,
            "behind_best": behind and {"mean": behind.value, "standard_error": behind.error, "beyond": behind.beyond},
        }
    return {**row.values, "calls": row.calls, "numbers": numbers}


def hours(layout: Layout, folder: Folder) -> dict[str, float]:
    """Return for how many hours networks were trained and cells measured, as if one after the other."""
    training = 0.0
    for model in layout.models.values():
        seconds = [float(one.get("seconds", 0.0)) for one in folder.run(model).metrics()]
        # They count from the start of a process: before each fall one was interrupted.
        training += sum(one for one, following in zip(seconds, [*seconds[1:], 0.0], strict=True) if following < one)
    measuring = sum(float(folder.measured(cell)["seconds"]) for cell in layout.cells.values() if folder.done(cell))
    return {"training": training / 3600, "measuring": measuring / 3600}


def machine() -> dict[str, Any]:
    """Return what computes here."""
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {"processor": _processor(), "cores": os.cpu_count(), "gpus": gpus, "system": platform.system()}


def _processor() -> str:
    """Return the name of the processor, as Linux tells it, or its architecture."""
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
