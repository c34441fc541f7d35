"""The tables of a study, in Markdown and in a page of HTML that has its plots inside."""

import base64
import html
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..evaluation.html_report import STYLE
from .published import VERDICTS, Comparison, compare, name_of
from .results import Results, Row
from .statistics import BEYOND, Mean, false_share

MOST_COLUMNS = 8
NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """A table of words: its caption, its head, and its rows."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(results: Results) -> list[Table]:
    """Return the tables of a study: each number with the last axis along the top, if there are two axes, and all."""
    found = []
    if len(results.axes) > 1 and len(results.axes[-1].variants) <= MOST_COLUMNS:
        found = [_crossed(results, number) for number in results.numbers]
    names = [axis.name for axis in results.axes]
    rows = [
        (*row.names.values(), _calls(row), *(entry(results, row, number) for number in results.numbers))
        for row in results.rows
    ]
    caption = "All of it" if found else "What was measured"
    found.append(Table(caption, (*names, "calls", *results.numbers), tuple(rows)))
    return [*found, *_beside(comparison)] if (comparison := compare(results)) else found


def _crossed(results: Results, number: str) -> Table:
    *left, top = results.axes
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in results.rows:
        lines.setdefault(tuple(row.names[axis.name] for axis in left), {})[row.names[top.name]] = entry(
            results, row, number
        )
    columns = [variant.name for variant in top.variants]
    rows = tuple((*names, *(line[column] for column in columns)) for names, line in lines.items())
    return Table(f"{number}, by {top.name}", (*(axis.name for axis in left), *columns), rows)


def _beside(comparison: Comparison) -> list[Table]:
    """Return what was published beside what was found, and which pairs of rows come in which order."""
    number, source = comparison.published.number, comparison.published.source
    rows = tuple(
        (name_of(row), f"{comparison.there(row):.4g}", with_error(comparison.here(row))) for row in comparison.rows
    )
    counts = tuple(
        (axis, *(str(count) for count in counted.values()), str(sum(counted.values())))
        for axis, counted in comparison.counts().items()
    )
    told = sorted(comparison.pairs, key=lambda pair: (VERDICTS.index(pair.verdict), -pair.published))
    pairs = tuple(
        (pair.verdict, name_of(pair.other), name_of(pair.one), f"{pair.published:.2g}", with_error(pair.here))
        for pair in told
        if pair.verdict != "not told apart"
    )
    return [
        Table(f"Beside what was published: {source}", ("row", "published", number), rows),
        Table("Pairs of rows that differ on one axis, by their order here", ("axis", *VERDICTS, "all"), counts),
        Table("Those that are told apart", ("order", "more", "less, as published", "by, as published", "by"), pairs),
    ]


def entry(results: Results, row: Row, number: str) -> str:
    """Return a number as a table has it: mean and standard error, bold if the best, and ≈ if that cannot be told."""
    if number not in row.entries:
        return NOTHING
    said = with_error(row.entries[number].mean)
    if results.best.get(number) is row:
        return f"**{said}**"
    return f"{said} ≈" if results.like_best(row, number) else said


def with_error(mean: Mean) -> str:
    """Return a mean with its standard error, if it has one, in as many digits as that allows: two of its own."""
    if not mean.error:
        return f"{mean.value:.4g}" + (" ± 0" if mean.error == 0 else "")
    decimals = max(0, 1 - math.floor(math.log10(mean.error)))
    return f"{mean.value:.{decimals}f} ± {mean.error:.{decimals}f}"


def _calls(row: Row) -> str:
    return NOTHING if row.calls is None else str(row.calls)


def explanation(results: Results) -> str:
    """Return what the entries of the tables are."""
    seeds = len(results.study.written.seeds)
    reals = {}
    for number in results.numbers:
        found = dict.fromkeys(row.entries[number].real for row in results.rows if number in row.entries)
        reals[number] = " or ".join("unknown" if real is None else f"{real:.4g}" for real in found) or "unknown"
    said = f"Real images would give: {'; '.join(f'{name} {real}' for name, real in reals.items())}. " if reals else ""
    if seeds == 1:
        return said + "Of one seed: nothing here tells a difference from chance."
    return (
        f"Mean ± standard error over {seeds} seeds of training, each sampled from other noise. {said}"
        "**Bold** is nearest to that. ≈ cannot be told from it: seed by seed, the differences of how far the two are "
        f"from real images have a mean within {BEYOND:g} standard errors. That is a weak word: of two rows that are "
        f"equal in truth, one pair in {round(1 / false_share(seeds))} would be called different with {seeds} seeds, "
        "and more often if one is the best of many, for that was lucky."
    )


def markdown(results: Results, record: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """Return the page as Markdown; `plots` are file names by caption."""
    parts = [f"# {results.study.title}", explanation(results)]
    for table in tables(results):
        lines = [table.head, tuple("---" for _ in table.head), *table.rows]
        parts += [f"## {table.caption}", "\n".join("| " + " | ".join(map(_bar, line)) + " |" for line in lines)]
    parts += [f"![{caption}]({file})" for caption, file in plots.items()]
    parts += ["\n".join(f"- failed: {line}" for line in failures(record))] if record["failed"] else []
    return "\n\n".join([*parts, _origin(record)]) + "\n"


def page(results: Results, record: Mapping[str, Any], plots: Mapping[str, bytes]) -> str:
    """Return the page as HTML; `plots` are PNGs by caption."""
    title = html.escape(results.study.title)
    parts = [f"<h1>{title}</h1>", f"<p>{_marked(explanation(results))}</p>"]
    for table in tables(results):
        parts += [f"<h2>{html.escape(table.caption)}</h2>", "<table>", _line("th", table.head)]
        parts += [*(_line("td", row) for row in table.rows), "</table>"]
    for caption, png in plots.items():
        source = base64.b64encode(png).decode()
        parts.append(f"<img alt='{html.escape(caption, quote=True)}' src='data:image/png;base64,{source}'>")
    parts += [f"<p>failed: {html.escape(line)}</p>" for line in failures(record)]
    style = STYLE + "td:last-child { color: inherit; font-size: inherit; text-align: right }"
    head = f"<!doctype html><meta charset='utf-8'><title>{title}</title><style>{style}</style>"
    return "\n".join([head, *parts, f"<pre>{html.escape(_origin(record))}</pre>"]) + "\n"


def failures(record: Mapping[str, Any]) -> list[str]:
    """Return a line for each cell and network that failed."""
    return [f"{one['key']} ({one['what']}): {one['why']}" for one in record["failed"]]


def _origin(record: Mapping[str, Any]) -> str:
    """Return where the page comes from: the command, how long it took, and on what."""
    hours, machine = record["hours"], record["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    gpus = f", {', '.join(machine['gpus'])}" if machine["gpus"] else ""
    return (
        f"`{record['command']}`: {hours['training']:.2f} hours of training and {hours['measuring']:.2f} of measuring, "
        f"one after the other, on {machine['processor']}, {machine['cores']} cores{gpus}; {versions}."
    )


def _line(tag: str, entries: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{_marked(entry)}</{tag}>" for entry in entries) + "</tr>"


def _marked(text: str) -> str:
    """Return text as HTML; what stands between two pairs of stars is bold."""
    parts = html.escape(text).split("**")
    return "".join(f"<b>{part}</b>" if number % 2 else part for number, part in enumerate(parts))


def _bar(text: str) -> str:
    return text.replace("|", "\\|")
