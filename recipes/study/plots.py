"""Plots of a study: each number against calls or a number that was varied, or row by row."""

import io
from collections.abc import Callable, Sequence

import matplotlib

from .definition import Axis
from .published import Comparison, compare
from .results import Results, Row

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STEPS = "sampler.steps"
WIDE = 10.0
"""The ratio of largest to smallest from which an axis is logarithmic."""
MOST_TICKS = 12


def plots(results: Results) -> dict[str, bytes]:
    """Return a PNG for each number that was measured, by its name, and one of what was published beside it."""
    found = {
        number: _plot(results, number)
        for number in results.numbers
        if any(number in row.entries for row in results.rows)
    }
    comparison = compare(results)
    if comparison and comparison.rows and results.axes:
        found["Published and here"] = _beside(comparison, results.axes)
    return found


def _plot(results: Results, number: str) -> bytes:
    rows = [row for row in results.rows if number in row.entries]
    numeric = sorted((axis for axis in results.axes if axis.numeric), key=lambda axis: axis.name != STEPS)
    along = numeric[0] if numeric else None
    height = 4.2 if along else 1.2 + 0.32 * len(rows)
    figure, axes = plt.subplots(figsize=(7.5, height), dpi=110, layout="constrained")
    if along:
        _lines(axes, results.axes, along, rows, number)
    else:
        _points(axes, results, rows, number)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png")
    plt.close(figure)
    return data.getvalue()


def _beside(comparison: Comparison, all_axes: Sequence[Axis]) -> bytes:
    """Draw what was found against what was published, a colour for each name on the first axis, named at the point."""
    figure, axes = plt.subplots(figsize=(7.5, 5.2), dpi=110, layout="constrained")
    colours = {variant.name: f"C{place % 10}" for place, variant in enumerate(all_axes[0].variants)}
    for row in comparison.rows:
        first, *others = row.names.values()
        there, here = comparison.there(row), comparison.here(row)
        label = first if first not in axes.get_legend_handles_labels()[1] else None
        error, colour = here.error or 0.0, colours[first]
        axes.errorbar(there, here.value, error, label=label, fmt="o", markersize=4, capsize=2, lw=1, color=colour)
        if others:
            axes.annotate(", ".join(others), (there, here.value), (4, 2), textcoords="offset points", fontsize=6)
    axes.set(xlabel="published", ylabel=comparison.published.number)
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    return _png(figure)


def _lines(axes: Axes, all_axes: Sequence[Axis], along: Axis, rows: Sequence[Row], number: str) -> None:
    """Draw a line for each combination of the other axes; steps of a sampler are counted in calls."""
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(", ".join(row.names[axis.name] for axis in all_axes if axis is not along), []).append(row)
    places = []
    for name, members in lines.items():
        x = [float(_place(row, along)) for row in members]
        means = [row.entries[number].mean for row in members]
        errors = [mean.error or 0.0 for mean in means]
        axes.errorbar(x, [mean.value for mean in means], errors, label=name, marker="o", markersize=4, capsize=3, lw=1)
        places += x
    if min(places) > 0 and max(places) / min(places) >= WIDE:
        axes.set_xscale("log")
    if len(set(places)) <= MOST_TICKS:
        axes.set_xticks(sorted(set(places)), [f"{place:g}" for place in sorted(set(places))])
        axes.xaxis.minorticks_off()
    values = [row.entries[number].mean.value for row in rows]
    if min(values) > 0 and max(values) / min(values) >= WIDE:
        axes.set_yscale("log")
    _real(axes.axhline, rows, number)
    axes.set(xlabel="network calls" if along.name == STEPS else along.name, ylabel=number)
    axes.grid(alpha=0.3)
    if len(lines) > 1 or rows[0].entries[number].real is not None:
        axes.legend(fontsize="small")


def _place(row: Row, along: Axis) -> float:
    if along.name == STEPS and row.calls is not None:
        return float(row.calls)
    return float(row.values[along.name])


def _points(axes: Axes, results: Results, rows: Sequence[Row], number: str) -> None:
    """Draw a point for each row, from the top down, and a colour for each variant of the last axis."""
    last = results.axes[-1] if results.axes else None
    colours = {variant.name: f"C{place % 10}" for place, variant in enumerate(last.variants)} if last else {}
    for place, row in enumerate(rows):
        mean = row.entries[number].mean
        colour = colours[row.names[last.name]] if last and len(results.axes) > 1 else "C0"
        axes.errorbar(mean.value, place, xerr=mean.error or 0.0, fmt="o", markersize=5, capsize=3, color=colour)
        for value in row.entries[number].values.values():
            axes.plot(value, place, "|", color=colour, alpha=0.5, markersize=9)
    axes.set_yticks(range(len(rows)), [", ".join(row.names.values()) or "the recipe" for row in rows])
    axes.invert_yaxis()
    if _real(axes.axvline, rows, number):
        axes.legend(fontsize="small")
    axes.set_xlabel(number)
    axes.grid(alpha=0.3, axis="x")


def _real(draw: Callable[..., object], rows: Sequence[Row], number: str) -> bool:
    """Draw what real images would give, if anyone can tell, and return whether so."""
    real = rows[0].entries[number].real
    if real is not None:
        draw(real, color="gray", linestyle="--", linewidth=1, label="real images")
    return real is not None
