"""The plots of a study: each metric against NFE or a number that was varied, or row by row."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..support.html_pages import figure_png
from .published import PublishedComparison, compare
from .results import ResultRow, StudyResults
from .study_file import Axis

STEPS = "sampler.steps"
WIDE = 6.0
"""The ratio of largest to smallest from which an axis is logarithmic."""
MARKERS = "os^DvP*X"
MOST_TICKS = 12


def plots(results: StudyResults) -> dict[str, bytes]:
    """Return a PNG of each metric that was measured, by its name, and one of published beside measured values."""
    found = {}
    for metric in results.metrics:
        if rows := [row for row in results.rows if metric in row.entries]:
            found[metric] = figure_png(_plot(results, rows, metric))
    comparison = compare(results)
    if comparison and comparison.rows and results.axes:
        found["Published and here"] = figure_png(_beside(comparison, results.axes))
    return found


def _plot(results: StudyResults, rows: Sequence[ResultRow], metric: str) -> Figure:
    numeric = sorted((axis for axis in results.axes if axis.numeric), key=lambda axis: axis.name != STEPS)
    figure = Figure(figsize=(7.5, 4.2 if numeric else 1.2 + 0.32 * len(rows)), dpi=110, layout="constrained")
    if numeric:
        _lines(figure.subplots(), results.axes, numeric[0], rows, metric)
    else:
        _points(figure.subplots(), results, rows, metric)
    return figure


def _beside(comparison: PublishedComparison, all_axes: Sequence[Axis]) -> Figure:
    """Draw measured against published values: a colour for each variant of the first axis, markers for the others."""
    figure = Figure(figsize=(7.5, 4.6), dpi=110, layout="constrained")
    axes = figure.subplots()
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
    return figure


def _logarithmic(values: Sequence[float], scale: Callable[[str], object]) -> None:
    """Make an axis logarithmic if its values are widely spread."""
    if min(values) > 0 and max(values) / min(values) >= WIDE:
        scale("log")


def _lines(axes: Axes, all_axes: Sequence[Axis], along: Axis, rows: Sequence[ResultRow], metric: str) -> None:
    """Draw a line for each combination of the other axes; steps of a sampler are counted in NFE."""
    lines: dict[str, list[ResultRow]] = {}
    for row in rows:
        lines.setdefault(", ".join(row.names[axis.name] for axis in all_axes if axis is not along), []).append(row)
    places = []
    for name, members in lines.items():
        x = [float(_place(row, along)) for row in members]
        means = [row.entries[metric].mean for row in members]
        errors = [mean.error or 0.0 for mean in means]
        axes.errorbar(x, [mean.value for mean in means], errors, label=name, marker="o", markersize=4, capsize=3, lw=1)
        places += x
    _logarithmic(places, axes.set_xscale)
    if len(set(places)) <= MOST_TICKS:
        axes.set_xticks(sorted(set(places)), [f"{place:g}" for place in sorted(set(places))])
        axes.xaxis.minorticks_off()
    _logarithmic([row.entries[metric].mean.value for row in rows], axes.set_yscale)
    _real(axes.axhline, rows, metric)
    axes.set(xlabel="NFE" if along.name == STEPS else along.name, ylabel=metric)
    axes.grid(alpha=0.3)
    if len(lines) > 1 or rows[0].entries[metric].real is not None:
        axes.legend(fontsize="small")


def _place(row: ResultRow, along: Axis) -> float:
    if along.name == STEPS and row.calls is not None:
        return float(row.calls)
    return float(row.values[along.name])


def _points(axes: Axes, results: StudyResults, rows: Sequence[ResultRow], metric: str) -> None:
    """Draw a point for each row, from the top down, and a colour for each variant of the last axis."""
    last = results.axes[-1] if results.axes else None
    colours = {variant.name: f"C{place % 10}" for place, variant in enumerate(last.variants)} if last else {}
    for place, row in enumerate(rows):
        mean = row.entries[metric].mean
        colour = colours[row.names[last.name]] if last and len(results.axes) > 1 else "C0"
        axes.errorbar(mean.value, place, xerr=mean.error or 0.0, fmt="o", markersize=5, capsize=3, color=colour)
        for value in row.entries[metric].values.values():
            axes.plot(value, place, "|", color=colour, alpha=0.5, markersize=9)
    axes.set_yticks(range(len(rows)), [", ".join(row.names.values()) or "the recipe" for row in rows])
    axes.invert_yaxis()
    _logarithmic([row.entries[metric].mean.value for row in rows], axes.set_xscale)
    axes.margins(y=0.5 / len(rows))
    if _real(axes.axvline, rows, metric):
        axes.legend(fontsize="small")
    axes.set_xlabel(metric)
    axes.grid(alpha=0.3, axis="x", which="both")


def _real(draw: Callable[..., object], rows: Sequence[ResultRow], metric: str) -> bool:
    """Draw the value of real images if it is known, and return whether it is."""
    real = rows[0].entries[metric].real
    if real is not None:
        draw(real, color="gray", linestyle="--", linewidth=1, label="real images")
    return real is not None
