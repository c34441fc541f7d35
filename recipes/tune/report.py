"""What is written of a tuning: `tune.json`, `tune.html`, its plots, and `sampler.toml`."""

import base64
import html
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..evaluation.html_report import STYLE
from ..experiment.sampler_files import sampler_toml
from ..sampling.manifest import versions
from ..storage.files import write_atomic
from ..study.record import machine
from ..study.statistics import BEYOND, Mean, false_share
from ..study.tables import with_error
from ..support.errors import UserError
from .benchmark import Trial
from .candidates import words
from .plots import bounds, distance_name, frontier, pareto
from .tune import CHOSEN, OWN, Diffusions, Tuned

SAMPLER = "sampler.toml"
WHAT_BOUND = (
    "The bound is 1/2 of the integral of (1 + w / w_KL)^2 L / w over the times {low:g} to {high:g}, with w_KL the "
    "recipe's `kl` and L the squared error of the network's velocity on training images. It is one of exact SDEs. L "
    "contains the variance of the velocity given the state, which no network can remove and which makes the bound "
    "loose, by more for some w than for others: its order need not be that of the bound that is meant, with the excess "
    "alone. Pairs are told apart by differences draw by draw beyond {beyond:g} standard errors; of pairs that are "
    "equal in truth, one in {wrongly} would be with so many draws."
)


def summary(tuned: Tuned) -> list[str]:
    """Return what was found, in a few lines."""
    task, aim, chosen = tuned.task, tuned.aim, tuned.chosen
    real = f"; real images {aim.real:.4g}" if aim.known else ""
    lines = [
        f"{aim.name}, with {task.calls} network calls at most, on {len(task.reporting)} draws of other seeds{real}:"
    ]
    for name in (CHOSEN, OWN):
        if name in tuned.lines:
            lines.append(_said(name, tuned.lines[name][task.calls], tuned))
    if tuned.gain is None:
        lines.append("the run's own sampler is the best that was found")
    else:
        told = f"{'beyond' if tuned.gain.beyond else 'no difference, for it is within'} {BEYOND:g} standard errors"
        side = "nearer to" if tuned.gain.value >= 0 else "further from"
        what = f"{side} {'real images' if aim.known else '0'} than the run's own"
        size = with_error(Mean(abs(tuned.gain.value), tuned.gain.error))
        lines.append(f"draw by draw {size} {what}, {told}")
    if chosen.calls < task.calls:
        lines.append(f"{chosen.calls} calls are what its steps come to: one more would exceed {task.calls}")
    lines += [f"the bound: {tuned.diffusions.verdict.sentence}"] if tuned.diffusions else []
    return [*lines, *(f"failed: {what}: {why}" for what, why in tuned.failures.items())]


def _said(name: str, trial: Trial, tuned: Tuned) -> str:
    number = with_error(Mean.of(trial.values(tuned.aim)))
    return f"{name}: {tuned.task.name(trial.recipe)}: {number} ({trial.calls} calls, {trial.rows} rows a sample)"


def write(tuned: Tuned, out: Path, command: str) -> None:
    """Write all of it into a folder.

    Raises:
        UserError: it cannot be written.
    """
    toml = sampler_toml(tuned.chosen.recipe, [f"`{command}`", *summary(tuned)[:3]])
    plots = {"pareto.png": pareto(tuned)} | (
        {"bounds.png": bounds(tuned, tuned.diffusions)} if tuned.diffusions and tuned.diffusions.found else {}
    )
    try:
        for name, png in plots.items():
            write_atomic(out / name, png)
        write_atomic(out / SAMPLER, toml.encode())
        write_atomic(out / "tune.json", (json.dumps(record(tuned, command), indent=2) + "\n").encode())
        write_atomic(out / "tune.html", page(tuned, plots, toml, command).encode())
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from error


def record(tuned: Tuned, command: str) -> dict[str, Any]:
    """Return the content of `tune.json`."""
    task, found = tuned.task, tuned.diffusions
    trials = {
        trial.key: trial for trial in (*tuned.candidates, *(t for line in tuned.lines.values() for t in line.values()))
    }
    return {
        "command": command,
        "versions": versions(),
        "machine": machine(),
        "hours": sum(trial.seconds for trial in trials.values()) / 3600,
        "calls": task.calls,
        "over": {axis.name: [variant.name for variant in axis.variants] for axis in task.axes},
        "number": {"name": tuned.aim.name, "real": tuned.aim.real if tuned.aim.known else None},
        "seeds": {"choosing": [*task.choosing], "reporting": [*task.reporting]},
        "candidates": [{"what": task.name(one.recipe), **one.describe()} for one in tuned.candidates],
        "lines": {
            name: [{"allowed": calls, **trial.describe()} for calls, trial in line.items()]
            for name, line in tuned.lines.items()
        },
        "pareto": [trial.key for trial in frontier(tuned)],
        "chosen": tuned.chosen.key,
        "gain": tuned.gain
        and {"mean": tuned.gain.value, "standard_error": tuned.gain.error, "beyond": tuned.gain.beyond},
        "diffusions": found and _diffusions(found),
        "failed": [{"what": what, "why": why} for what, why in tuned.failures.items()],
    }


def _diffusions(found: Diffusions) -> dict[str, Any]:
    correlation = found.verdict.correlation
    return {
        "rows": [
            {
                "w": one.name,
                "bound": one.bound if math.isfinite(one.bound) else None,
                "distances": [*one.distances.values()],
            }
            for one in (*([found.ode] if found.ode else []), *found.found)
        ],
        "times": found.times,
        "rank_correlation": None if math.isnan(correlation) else correlation,
        "pairs": found.verdict.pairs,
        "right": found.verdict.right,
        "said": found.verdict.sentence,
    }


def page(tuned: Tuned, plots: dict[str, bytes], toml: str, command: str) -> str:
    """Return the page as HTML."""
    task, aim, keys = tuned.task, tuned.aim, tuned.task.keys
    chosen, told = [*task.choosing], [*task.reporting]
    title = html.escape(f"The sampler for {task.calls} calls")
    parts = [f"<h1>{title}</h1>", *(f"<p>{html.escape(line)}</p>" for line in summary(tuned))]
    parts.append(
        f"<p>Candidates were chosen by samples of seeds {_range(chosen)}, of which their own table tells. All else is "
        f"of seeds {_range(told)}; means ± standard errors over draws. Both are compared with the same real images, "
        "and drawn from one trained network.</p>"
    )
    parts += ["<h2>Quality against calls</h2>", _picture(plots["pareto.png"], "quality against calls")]
    rows = [
        (name, *words(trial.recipe, keys), str(trial.calls), str(trial.rows), with_error(Mean.of(trial.values(aim))))
        for name, line in tuned.lines.items()
        for trial in line.values()
    ]
    parts.append(_table(("", *keys, "calls", "rows a sample", aim.name), rows))
    ranked = sorted(tuned.candidates, key=lambda trial: trial.distance(aim))
    rows = [(*words(one.recipe, keys), str(one.calls), f"{one.numbers[aim.name]['mean']:.4g}") for one in ranked]
    parts += ["<h2>Candidates, the best first</h2>", _table((*keys, "calls", aim.name), rows)]
    if found := tuned.diffusions:
        low, high = found.times
        wrongly = round(1 / false_share(len(task.reporting)))
        said = WHAT_BOUND.format(low=low, high=high, beyond=BEYOND, wrongly=wrongly)
        parts += ["<h2>Each w, without guidance</h2>", f"<p>{said}</p>"]
        parts += [_picture(plots["bounds.png"], "each w against its bound")] if found.found else []
        every = sorted([*found.found, *([found.ode] if found.ode else [])], key=lambda one: one.bound)
        rows = [
            (one.name, f"{one.bound:.4g}" if math.isfinite(one.bound) else "none", with_error(Mean.of(one.distances)))
            for one in every
        ]
        parts.append(_table(("w", "bound, nats", distance_name(tuned)), rows))
    parts += [f"<h2>{SAMPLER}</h2><pre>{html.escape(toml)}</pre>"]
    parts.append(f"<pre>{html.escape(command)}\n{', '.join(f'{name} {one}' for name, one in versions().items())}</pre>")
    style = STYLE + "td:last-child { color: inherit; font-size: inherit; text-align: right }"
    return (
        f"<!doctype html><meta charset='utf-8'><title>{title}</title><style>{style}</style>\n" + "\n".join(parts) + "\n"
    )


def _range(seeds: Sequence[int]) -> str:
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [_line("th", head), *(_line("td", row) for row in rows)]
    return "\n".join(["<table>", *lines, "</table>"])


def _line(tag: str, entries: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(entry)}</{tag}>" for entry in entries) + "</tr>"


def _picture(png: bytes, what: str) -> str:
    return f"<img alt='{what}' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
