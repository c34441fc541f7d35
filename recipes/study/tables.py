"""The tables of a study, as Markdown and as an HTML page with its plots."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..support.html_pages import render
from .published import UNKNOWN, VERDICTS, PublishedComparison, compare
from .results import ResultRow, StudyResults
from .statistics import BEYOND, false_rate

MOST_COLUMNS = 8
NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """A table of text: its caption, its head, and its rows."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def lines(self) -> tuple[tuple[str, ...], ...]:
        """The lines in Markdown: the head, a rule, and the rows."""
        return (self.head, ("---",) * len(self.head), *self.rows)


def tables(results: StudyResults) -> list[Table]:
    """Return a table of each metric, if there are two axes, one of all metrics, and those of published values."""
    found = []
    if len(results.axes) > 1 and len(results.axes[-1].variants) <= MOST_COLUMNS:
        found = [_pivoted(results, metric) for metric in results.metrics]
    names = [axis.name for axis in results.axes]
    rows = []
    for row in results.rows:
        calls = NOTHING if row.calls is None else str(row.calls)
        rows.append((*row.names.values(), calls, *(_entry(results, row, metric) for metric in results.metrics)))
    caption = "All metrics" if found else "Metrics"
    found.append(Table(caption, (*names, "NFE", *results.metrics), tuple(rows)))
    return [*found, *_beside(comparison)] if (comparison := compare(results)) else found


def _pivoted(results: StudyResults, metric: str) -> Table:
    """Return a table of a metric with the variants of the last axis as columns."""
    *left, top = results.axes
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in results.rows:
        line = lines.setdefault(tuple(row.names[axis.name] for axis in left), {})
        line[row.names[top.name]] = _entry(results, row, metric)
    columns = [variant.name for variant in top.variants]
    rows = tuple((*names, *(line[column] for column in columns)) for names, line in lines.items())
    return Table(f"{metric}, by {top.name}", (*(axis.name for axis in left), *columns), rows)


def _beside(comparison: PublishedComparison) -> list[Table]:
    """Return tables of published beside measured values, of the verdicts, and of the pairs that differ."""
    number, source = comparison.published.number, comparison.published.source
    rows = tuple((row.name, f"{comparison.there(row):.4g}", str(comparison.here(row))) for row in comparison.rows)
    counts = tuple(
        (axis, *(str(count) for count in counted.values()), str(sum(counted.values())))
        for axis, counted in comparison.counts().items()
    )
    differing = [pair for pair in comparison.pairs if pair.verdict != UNKNOWN]
    differing.sort(key=lambda pair: (VERDICTS.index(pair.verdict), -pair.published))
    pairs = tuple(
        (pair.verdict, pair.other.name, pair.one.name, f"{pair.published:.2g}", str(pair.here)) for pair in differing
    )
    return [
        Table(f"Published values: {source}", ("row", "published", number), rows),
        Table("Orders of the pairs of rows that differ on one axis", ("axis", *VERDICTS, "all"), counts),
        Table("Significant pairs", ("order", "more", "less, as published", "by, as published", "by"), pairs),
    ]


def _entry(results: StudyResults, row: ResultRow, metric: str) -> str:
    """Return mean and standard error, bold for the best, with ≈ if not significantly behind the best."""
    if metric not in row.entries:
        return NOTHING
    text = str(row.entries[metric].mean)
    if results.best.get(metric) is row:
        return f"**{text}**"
    return f"{text} ≈" if results.like_best(row, metric) else text


def explanation(results: StudyResults) -> str:
    """Return what the entries of the tables are."""
    seeds = len(results.study.content.seeds)
    reals = {}
    for metric in results.metrics:
        found = dict.fromkeys(row.entries[metric].real for row in results.rows if metric in row.entries)
        reals[metric] = " or ".join("unknown" if real is None else f"{real:.4g}" for real in found) or "unknown"
    real = f"Real images give: {'; '.join(f'{name} {one}' for name, one in reals.items())}. " if reals else ""
    if seeds == 1:
        return real + "There is one seed: no difference here can be called significant."
    return (
        f"Mean ± standard error over {seeds} training seeds, each sampled from other noise. {real}"
        "**Bold** is nearest to real images. ≈ marks rows that are not significantly farther: the mean over seeds of "
        f"the differences in distance from real images is within {BEYOND:g} standard errors. With few seeds this is "
        f"weak evidence: with {seeds} seeds, one in {round(1 / false_rate(seeds))} pairs of rows with equal expected "
        "values would be called different. The rate is higher for comparisons with the best of many rows, because of "
        "selection bias."
    )


def markdown(results: StudyResults, record: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """Return the page as Markdown; `plots` are file names by caption."""
    return render("study/templates/study.md", **_values(results, record), plots=plots)


def page(results: StudyResults, record: Mapping[str, Any], plots: Mapping[str, bytes]) -> str:
    """Return the page as HTML; `plots` are PNGs by caption."""
    return render("study/templates/study.html", **_values(results, record), plots=plots)


def _values(results: StudyResults, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what both templates show."""
    hours, machine = record["hours"], record["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    gpus = f", {', '.join(machine['gpus'])}" if machine["gpus"] else ""
    return {
        "title": results.study.title,
        "explanation": explanation(results),
        "tables": tables(results),
        "failures": [f"{one['key']} ({one['what']}): {one['why']}" for one in record["failed"]],
        "command": record["command"],
        "origin": (
            f"{_duration(hours['training'])} of training and {_duration(hours['measuring'])} of evaluation, "
            f"summed over all jobs, on {machine['processor']}, {machine['cores']} cores{gpus}; {versions}."
        ),
    }


def _duration(hours: float) -> str:
    """Return a duration as text, in hours, minutes or seconds."""
    if hours >= 1:
        return f"{hours:.2f} hours"
    return f"{60 * hours:.1f} minutes" if 60 * hours >= 1 else f"{3600 * hours:.0f} seconds"
