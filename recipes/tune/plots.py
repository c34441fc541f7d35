"""The plots of a sampler search: quality against NFE, and the measurement of each w against its bound."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .benchmark import SamplerMeasurement
from .sampler_search import BoundComparison, SearchResult, display_name


def pareto_front(result: SearchResult) -> list[SamplerMeasurement]:
    """Return the measurements with several NFE that none with as few NFE exceeds; significance is not tested."""
    measurements = [one for line in result.lines.values() for one in line.values()]
    found: list[SamplerMeasurement] = []
    for one in sorted(measurements, key=lambda one: (one.found.calls, one.distance(result.metric))):
        if not found or one.distance(result.metric) < found[-1].distance(result.metric):
            found.append(one)
    return found


def quality_against_nfe(result: SearchResult) -> Figure:
    """Return a plot of quality against NFE."""
    figure, axes = _figure()
    metric = result.metric
    x = [one.found.calls for one in result.candidates]
    y = [one.found.numbers[metric.name]["mean"] for one in result.candidates]
    axes.plot(x, y, "_", color="gray", markersize=9, label="candidates, by the samples that chose", zorder=1)
    for name, line in result.lines.items():
        x = [one.found.calls for one in line.values()]
        means = [one.values(metric).mean for one in line.values()]
        errors = [mean.error or 0.0 for mean in means]
        label = f"{display_name(name)}: {result.task.name(next(iter(line.values())).recipe)}"
        axes.errorbar(x, [mean.value for mean in means], errors, label=label, marker="o", markersize=4, capsize=3, lw=1)
    best = pareto_front(result)
    y = [one.values(metric).mean.value for one in best]
    axes.plot([one.found.calls for one in best], y, "o", mfc="none", mec="black", markersize=10, label="Pareto front")
    axes.set_xscale("log")
    ticks = sorted({one.found.calls for line in result.lines.values() for one in line.values()})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.minorticks_off()
    if metric.real is not None:
        axes.axhline(metric.real, color="gray", linestyle="--", linewidth=1, label="real images")
    axes.set(xlabel="NFE", ylabel=metric.name)
    figure.legend(loc="outside lower center", fontsize="small")
    return figure


def distance_against_bound(result: SearchResult, bounds: BoundComparison) -> Figure:
    """Return a plot of the measurement of each w against its bound."""
    figure, axes = _figure()
    for number, one in enumerate(sorted(bounds.found, key=lambda one: one.bound)):
        mean = one.measured.distance
        colour, marker, error = f"C{number % 10}", "os^v"[number // 10 % 4], mean.error or 0.0
        axes.errorbar(one.bound, mean.value, error, fmt=marker, color=colour, markersize=5, capsize=3, label=one.name)
    if bounds.ode:
        value = bounds.ode.measured.distance.value
        axes.axhline(value, color="gray", linestyle="--", linewidth=1, label="ode: no bound")
    axes.set_xscale("log")
    axes.set(xlabel="bound, nats", ylabel=distance_name(result))
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def distance_name(result: SearchResult) -> str:
    """Return the name of the distance that is minimized."""
    name = result.metric.name
    return name if result.metric.real is None else f"{name}: absolute difference from real images"


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.5, 4.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes
