"""Plots of error against NFE."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.artist import Artist

NAMES = {"linear": "Linear", "gvp": "GVP", "ode": "ODE", "sigma": "SDE, w = 2 sigma", "kl": "SDE, w = KL"}
TITLES = {
    "plane": "rings and mixtures in the plane",
    "manifold": "mixtures near 4 of 64 dimensions",
    "digits": "trained network, 8x8 digits",
    "mnist5k": "trained network, MNIST",
}
LABELS = {
    "ode": "distance to the converged end",
    "sde": "sliced Cramér distance, less its floor",
    "digits": "Fréchet distance to held-out images",
}

COLUMNS = 4


def draw(task: str, rows: list[dict[str, Any]], file: Path) -> None:
    """Plot the panels of a task; an error that is not significant is a hollow point at the end of its interval."""
    equations = [w for w in ("ode", "sigma", "kl") if any(row["w"] == w for row in rows)]
    paths = [path for path in ("linear", "gvp") if any(row["path"] == path for row in rows)]
    names = sorted({row["contender"] for row in rows}, key=lambda name: (name != "sitkit", name))
    legend = 0.5 + 0.2 * -(-len(names) // COLUMNS)
    width, height = 5.2 * max(len(equations), 2), 4 * len(paths) + legend
    figure, axes = plt.subplots(len(paths), len(equations), figsize=(width, height), squeeze=False, sharex=True)
    for i, path in enumerate(paths):
        for j, w in enumerate(equations):
            axis = axes[i][j]
            for number, name in enumerate(names):
                here = [r for r in rows if (r["path"], r["w"], r["contender"]) == (path, w, name)]
                if here:
                    _line(axis, sorted(here, key=lambda row: row["calls"]), name, number)
            axis.set(xscale="log", yscale="log", title=f"{NAMES[w]}, {NAMES[path]}")
            axis.set_ylabel(LABELS.get(task, LABELS["ode" if w == "ode" else "sde"]))
            axis.grid(alpha=0.2, which="both")
            ticks = sorted({row["calls"] for row in rows})
            axis.set_xticks([n for n in ticks if n in (4, 5, 8, 10, 16, 20, 32, 50, 100)])
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    for axis in axes[-1]:
        axis.set_xlabel("NFE")
    handles: dict[str, Artist] = {}
    for axis in axes.flat:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.suptitle(TITLES.get(task, task))
    figure.legend(
        [*handles.values()], [*handles], loc="lower center", ncols=COLUMNS, frameon=False, bbox_to_anchor=(0.5, 0.0)
    )
    figure.tight_layout(rect=(0, legend / height, 1, 1))
    figure.savefig(file, dpi=72)
    plt.close(figure)


def _line(axis: Any, rows: list[dict[str, Any]], name: str, number: int) -> None:
    ours = name == "sitkit"
    colour = "black" if ours else plt.get_cmap("tab20")((number - 1) % 20)
    x = [row["calls"] for row in rows]
    significant = [row["low"] > 0 for row in rows]
    y = [row["error"] if sure else row["high"] for row, sure in zip(rows, significant, strict=True)]
    axis.plot(x, y, color=colour, lw=2.5 if ours else 1.2, label=name, zorder=3 if ours else 2)
    axis.fill_between(x, [max(r["low"], 1e-12) if s else v for r, s, v in zip(rows, significant, y, strict=True)],
                      [row["high"] for row in rows], color=colour, alpha=0.15, lw=0)  # fmt: skip
    for sure in (True, False):
        at = [(a, b) for a, b, s in zip(x, y, significant, strict=True) if s == sure]
        if at:
            axis.scatter(*zip(*at, strict=True), s=14, color=colour, facecolors=colour if sure else "white", zorder=4)
