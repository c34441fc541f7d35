"""Scaling of time and memory with tokens, batch, depth and processes: measured, and as counted operations predict."""

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from math import log
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from shapes import Setup
from throughput_table import seconds, setup_of

mpl.use("Agg")
import matplotlib.pyplot as plt

AXES = {
    "tokens": ("side", (16, 24, 32, 48, 64)),
    "batch": ("batch", (1, 2, 4, 8, 16)),
    "depth": ("depth", (1, 2, 4, 8, 12)),
    "processes": ("processes", tuple(number for number in (1, 2, 4, 8) if number <= max(2, os.cpu_count() or 1))),
}
"""The varied field of `Setup` and its values. Tokens are (side / 2)^2, 64 to 1,024; each process has a batch of 4."""


def setups(axis: str, threads: int) -> list[Setup]:
    """Return setups of SiT-S/2 of depth 3, batch 4 and 256 tokens, with one of them varied."""
    field, values = AXES[axis]
    common = Setup("sitkit", depth=3, batch=4, threads=threads)
    changed = [Setup(**vars(common) | {field: value}) for value in values]
    return [replace(setup, batch=setup.batch * setup.processes) for setup in changed]


def size_of(setup: Setup, axis: str) -> int:
    """Return the value of the varied quantity."""
    return (setup.side // 2) ** 2 if axis == "tokens" else int(asdict(setup)[AXES[axis][0]])


def slope(x: list[float], y: list[float]) -> float:
    """Return the exponent of y in x, by least squares of logarithms."""
    a, b = [log(one) for one in x], [log(one) for one in y]
    middle, level = sum(a) / len(a), sum(b) / len(b)
    return sum((p - middle) * (q - level) for p, q in zip(a, b, strict=True)) / sum((p - middle) ** 2 for p in a)


def curves(group: Mapping[str, Any], axis: str) -> dict[str, list[float]]:
    """Return the measurements along an axis; operations and memory are per process."""
    records, clock = group["times"], group["clock"]
    setups_ = [setup_of(record) for record in records]
    return {
        "size": [float(size_of(setup, axis)) for setup in setups_],
        "operations": [setup.operations() / setup.processes for setup in setups_],
        "forward": [median(seconds(record, "forward", clock)) for record in records],
        "step": [median(seconds(record, "step", clock)) for record in records],
        "memory": [(one["memory"] - one["bare"]) / one["processes"] for one in records],
    }


def exponents(groups: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the exponents of operations, times and memory for each axis."""
    rows = []
    for axis, group in groups.items():
        found = curves(group, axis)
        size = found.pop("size")
        rows.append({"axis": axis} | {name: round(slope(size, values), 2) for name, values in found.items()})
    return rows


def draw(groups: Mapping[str, Any], file: Path) -> None:
    """Plot seconds of a forward pass and a step along each axis, and lines proportional to the operations."""
    figure, axes = plt.subplots(1, len(groups), figsize=(4.2 * len(groups), 3.8), squeeze=False)
    for axis, (name, group) in zip(axes[0], groups.items(), strict=True):
        found = curves(group, name)
        size = found["size"]
        for what in ("forward", "step"):
            expected = slope(size, found["operations"])
            axis.plot(size, found[what], "o-", label=f"{what}: exponent {slope(size, found[what]):.2f}")
            scale = found[what][-1] / found["operations"][-1]
            line = [scale * one for one in found["operations"]]
            axis.plot(size, line, "k:", lw=1, label=f"operations: {expected:.2f}" if what == "step" else None)
        axis.set(xscale="log", yscale="log", xlabel=name, ylabel="seconds")
        axis.legend(frameon=False, fontsize=8)
        axis.grid(alpha=0.2, which="both")
    figure.tight_layout()
    figure.savefig(file, dpi=72)
    plt.close(figure)
