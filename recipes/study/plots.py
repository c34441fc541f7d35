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
WIDE = 6.0
"""The ratio of largest to smallest from which an axis is logarithmic."""
MARKERS = "os^DvP*X"
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
    """Draw what was found against what was published: a colour for a name on the first axis, a marker for the rest."""
    figure, axes = plt.subplots(figsize=(7.5, 4.6), dpi=110, layout="constrained")
    colours = {variant.name: f"C{place % 10}" for place, variant in enumerate(all_axes[0].variants)}
    markers: dict[str, str] = {}
    for row in comparison.rows:
        first, *others = row.names.values()
        marker = markers.setdefault(", ".join(others), MARKERS[len(markers) % len(MARKERS)])
        there, here = comparison.there(row), comparison.here(row)
        style = {"fmt": marker, "markersize": 5, "capsize": 2, "lw": 1, "color": colours[first], "alpha": 0.8}
        axes.errorbar(there, here.value, here.error or 0.0, **style)  # type: ignore[arg-type]
    values = [comparison.here(row).value for row in comparison.rows]
    _logarithmic(values, axes.set_yscale)
    axes.set(xlabel="published", ylabel=comparison.published.number)
    for name, colour in colours.items():
        axes.plot([], [], "o", color=colour, label=name)
    for name, marker in markers.items() if len(markers) > 1 else ():
        axes.plot([], [], marker, color="gray", label=name)
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axes.grid(alpha=0.3, which="both")
    return _png(figure)


def _logarithmic(values: Sequence[float], scale: Callable[[str], object]) -> None:
    """Make an axis logarithmic if what it shows is widely spread."""
    if min(values) > 0 and max(values) / min(values) >= WIDE:
        scale("log")


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
    _logarithmic(places, axes.set_xscale)
    if len(set(places)) <= MOST_TICKS:
        axes.set_xticks(sorted(set(places)), [f"{place:g}" for place in sorted(set(places))])
        axes.xaxis.minorticks_off()
    _logarithmic([row.entries[number].mean.value for row in rows], axes.set_yscale)
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
    _logarithmic([row.entries[number].mean.value for row in rows], axes.set_xscale)
    axes.margins(y=0.5 / len(rows))
    if _real(axes.axvline, rows, number):
        axes.legend(fontsize="small")
    axes.set_xlabel(number)
    axes.grid(alpha=0.3, axis="x", which="both")


def _real(draw: Callable[..., object], rows: Sequence[Row], number: str) -> bool:
    """Draw what real images would give, if anyone can tell, and return whether so."""
    real = rows[0].entries[number].real
    if real is not None:
        draw(real, color="gray", linestyle="--", linewidth=1, label="real images")
    return real is not None
