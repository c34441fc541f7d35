"""Plots of a tuning: quality against calls, and what was measured of each w against its bound."""

import io

import matplotlib

from ..study.statistics import Mean
from .benchmark import Trial
from .tune import Diffusions, Tuned

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def frontier(tuned: Tuned) -> list[Trial]:
    """Return the trials, of those with several numbers of calls, that none is better than with as few calls.

    Whether by chance is not asked.
    """
    trials = [trial for line in tuned.lines.values() for trial in line.values()]
    found: list[Trial] = []
    for trial in sorted(trials, key=lambda trial: (trial.calls, trial.distance(tuned.aim))):
        if not found or trial.distance(tuned.aim) < found[-1].distance(tuned.aim):
            found.append(trial)
    return found


def pareto(tuned: Tuned) -> bytes:
    """Return a PNG of quality against calls."""
    figure, axes = plt.subplots(figsize=(7.5, 4.5), dpi=110, layout="constrained")
    aim, places = tuned.aim, set()
    if tuned.candidates:
        x = [trial.calls for trial in tuned.candidates]
        means = [trial.numbers[aim.name]["mean"] for trial in tuned.candidates]
        axes.plot(x, means, "_", color="gray", markersize=9, label="candidates, by the samples that chose", zorder=1)
    for name, line in tuned.lines.items():
        trials = [*line.values()]
        places |= {trial.calls for trial in trials}
        means = [Mean.of(trial.values(aim)) for trial in trials]
        errors = [mean.error or 0.0 for mean in means]
        label = f"{name}: {tuned.task.name(trials[0].recipe)}"
        x = [trial.calls for trial in trials]
        axes.errorbar(x, [mean.value for mean in means], errors, label=label, marker="o", markersize=4, capsize=3, lw=1)
    best = frontier(tuned)
    means = [Mean.of(trial.values(aim)).value for trial in best]
    axes.plot([t.calls for t in best], means, "o", mfc="none", mec="black", markersize=10, label="Pareto front")
    axes.set_xscale("log")
    axes.set_xticks(sorted(places), [str(place) for place in sorted(places)])
    axes.xaxis.minorticks_off()
    _real(axes, tuned)
    axes.set(xlabel="network calls", ylabel=aim.name)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize="small")
    return _png(figure)


def bounds(tuned: Tuned, diffusions: Diffusions) -> bytes:
    """Return a PNG of what was measured of each w against its bound."""
    figure, axes = plt.subplots(figsize=(7.5, 4.5), dpi=110, layout="constrained")
    for place, one in enumerate(sorted(diffusions.found, key=lambda one: one.bound)):
        mean = Mean.of(one.distances)
        colour, marker, error = f"C{place % 10}", "os^v"[place // 10 % 4], mean.error or 0.0
        axes.errorbar(one.bound, mean.value, error, fmt=marker, color=colour, markersize=5, capsize=3, label=one.name)
    if diffusions.ode:
        value = Mean.of(diffusions.ode.distances).value
        axes.axhline(value, color="gray", linestyle="--", linewidth=1, label="ode: no bound")
    axes.set_xscale("log")
    axes.set(xlabel="bound, nats", ylabel=distance_name(tuned))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    return _png(figure)


def distance_name(tuned: Tuned) -> str:
    """Return what it is that is to be small."""
    return f"{tuned.aim.name}, how far from real images" if tuned.aim.known else tuned.aim.name


def _real(axes: Axes, tuned: Tuned) -> None:
    if tuned.aim.known:
        axes.axhline(tuned.aim.real, color="gray", linestyle="--", linewidth=1, label="real images")


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png")
    plt.close(figure)
    return data.getvalue()
