"""The files of a sampler search: `tune.json`, `tune.html`, its plots, and `sampler.toml`."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..experiment.sampler_files import sampler_toml
from ..storage.files import write_files
from ..study.statistics import BEYOND, Estimate, false_rate
from ..support.environment import machine, versions
from ..support.html_pages import figure_png, render
from .candidates import words
from .plots import distance_against_bound, distance_name, pareto_front, quality_against_nfe
from .sampler_search import CHOSEN, OWN, BoundComparison, SearchResult, display_name

SAMPLER = "sampler.toml"
PARETO, BOUNDS = "pareto.png", "bounds.png"


def summary(result: SearchResult) -> list[str]:
    """Return the result in a few lines."""
    task, metric, gain = result.task, result.metric, result.gain
    real = "" if metric.real is None else f"; real images {metric.real:.4g}"
    lines = [f"{metric.name}, with at most {task.calls} NFE, on {len(task.reporting)} draws of other seeds{real}:"]
    for name in (CHOSEN, OWN):
        if name in result.lines:
            one = result.lines[name][task.calls]
            cost = f"({one.found.calls} NFE, {one.found.rows} network rows per sample)"
            lines.append(f"{display_name(name)}: {task.name(one.recipe)}: {one.values(metric).mean} {cost}")
    if gain is None:
        lines.append("the run's sampler is the best that was found")
    else:
        side = f"{'nearer to' if gain.value >= 0 else 'farther from'} {'0' if metric.real is None else 'real images'}"
        significance = "beyond" if gain.significant else "not significant, within"
        size = Estimate(abs(gain.value), gain.error)
        lines.append(f"draw by draw {size} {side} than the run's sampler, {significance} {BEYOND:g} standard errors")
    if result.chosen.found.calls < task.calls:
        lines.append(f"its steps make {result.chosen.found.calls} NFE: one more step would exceed {task.calls}")
    lines += [result.bounds.agreement.sentence] if result.bounds else []
    return [*lines, *(f"failed: {what}: {why}" for what, why in result.failures.items())]


def write(result: SearchResult, out: Path, command: str) -> None:
    """Write all files into a folder.

    Raises:
        UserError: they cannot be written.
    """
    toml = sampler_toml(result.chosen.recipe, [f"`{command}`", *summary(result)[:3]])
    plots = {PARETO: figure_png(quality_against_nfe(result))}
    if result.bounds and result.bounds.found:
        plots[BOUNDS] = figure_png(distance_against_bound(result, result.bounds))
    texts = {
        SAMPLER: toml,
        "tune.json": json.dumps(record(result, command), indent=2) + "\n",
        "tune.html": page(result, plots, toml, command),
    }
    write_files(out, {**plots, **{name: text.encode() for name, text in texts.items()}})


def record(result: SearchResult, command: str) -> dict[str, Any]:
    """Return the content of `tune.json`."""
    task, metric, gain = result.task, result.metric, result.gain
    reported = [one for line in result.lines.values() for one in line.values()]
    seconds = {one.key: one.found.seconds for one in (*result.candidates, *reported)}
    return {
        "command": command,
        "versions": versions(),
        "machine": machine(),
        "hours": sum(seconds.values()) / 3600,
        "calls": task.calls,
        "over": {axis.name: [variant.name for variant in axis.variants] for axis in task.axes},
        "number": {"name": metric.name, "real": metric.real},
        "seeds": {"choosing": [*task.choosing], "reporting": [*task.reporting]},
        "candidates": [{"what": task.name(one.recipe), **one.describe()} for one in result.candidates],
        "lines": {
            name: [{"allowed": calls, **one.describe()} for calls, one in line.items()]
            for name, line in result.lines.items()
        },
        "pareto": [one.key for one in pareto_front(result)],
        "chosen": result.chosen.key,
        "gain": gain and {**gain.describe(), "beyond": gain.significant},
        "diffusions": result.bounds and _bounds_record(result.bounds),
        "failed": [{"what": what, "why": why} for what, why in result.failures.items()],
    }


def _bounds_record(bounds: BoundComparison) -> dict[str, Any]:
    rows = [
        {
            "w": one.name,
            "bound": one.bound if math.isfinite(one.bound) else None,
            "distances": [*one.measured.distances.values()],
        }
        for one in bounds.all
    ]
    agreement = bounds.agreement
    return {
        "rows": rows,
        "times": bounds.times,
        "rank_correlation": None if math.isnan(agreement.correlation) else agreement.correlation,
        "pairs": agreement.pairs,
        "right": agreement.right,
        "said": agreement.sentence,
    }


def page(result: SearchResult, plots: Mapping[str, bytes], toml: str, command: str) -> str:
    """Return the page as HTML; `plots` are PNGs by file name."""
    task, metric, keys = result.task, result.metric, result.task.keys
    lines = [
        (display_name(name), *words(one.recipe, keys), one.found.calls, one.found.rows, one.values(metric).mean)
        for name, line in result.lines.items()
        for one in line.values()
    ]
    candidates = [
        (*words(one.recipe, keys), one.found.calls, f"{one.found.numbers[metric.name]['mean']:.4g}")
        for one in sorted(result.candidates, key=lambda one: one.distance(metric))
    ]
    bounds = []
    if result.bounds:
        for one in sorted(result.bounds.all, key=lambda one: one.bound):
            bound = f"{one.bound:.4g}" if math.isfinite(one.bound) else "none"
            bounds.append((one.name, bound, one.measured.distance))
    return render(
        "tune/templates/tune.html",
        title=f"The sampler for {task.calls} NFE",
        summary=summary(result),
        choosing=_range(task.choosing),
        reporting=_range(task.reporting),
        keys=[*keys],
        metric=metric.name,
        lines=lines,
        candidates=candidates,
        pareto=plots[PARETO],
        bounds=bounds,
        bound_plot=plots.get(BOUNDS),
        times=result.bounds and result.bounds.times,
        beyond=BEYOND,
        false_pairs=round(1 / false_rate(len(task.reporting))),
        distance=distance_name(result),
        toml=toml,
        command=command,
        versions=versions(),
    )


def _range(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
