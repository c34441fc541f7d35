"""What was published of the rows of a study, and whether its own seeds tell them in the same order."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..support.errors import UserError
from .definition import Published, check_number
from .results import Results, Row
from .statistics import Mean, difference

Verdict = Literal["as published", "the other way", "not told apart"]
VERDICTS: tuple[Verdict, ...] = ("the other way", "as published", "not told apart")


@dataclass(frozen=True, eq=False)
class Pair:
    """Two rows that differ on one axis, the lesser of what was published first: other minus one, there and here."""

    axis: str
    one: Row
    other: Row
    published: float
    here: Mean

    @property
    def verdict(self) -> Verdict:
        """Which order the seeds tell."""
        if not self.here.beyond:
            return "not told apart"
        return "as published" if self.here.value > 0 else "the other way"


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was published beside what was found: rows with both, in the study's order, and their pairs."""

    published: Published
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]

    def there(self, row: Row) -> float:
        """Return what was published of a row."""
        return self.published.rows[name_of(row)]

    def here(self, row: Row) -> Mean:
        """Return what was found of a row."""
        return row.entries[self.published.number].mean

    def counts(self) -> dict[str, dict[Verdict, int]]:
        """Return how many pairs have each verdict, by axis."""
        found: dict[str, dict[Verdict, int]] = {}
        for pair in self.pairs:
            found.setdefault(pair.axis, dict.fromkeys(VERDICTS, 0))[pair.verdict] += 1
        return found


def name_of(row: Row) -> str:
    """Return a row's name: those of its variants."""
    return ", ".join(row.names.values())


def compare(results: Results) -> Comparison | None:
    """Return what was published beside what was found so far; None if the study knows of nothing published.

    Raises:
        UserError: the number that was published is not one of those that are tabled.
    """
    published = results.study.written.published
    if published is None:
        return None
    try:
        check_number(published, results.numbers)
    except UserError as problem:
        raise UserError(f"{results.study.file}: {problem}") from None
    rows = [row for row in results.rows if published.number in row.entries and name_of(row) in published.rows]
    return Comparison(published, tuple(rows), tuple(_pairs(rows, published)))


def _pairs(rows: list[Row], published: Published) -> Iterator[Pair]:
    for pair in itertools.combinations(rows, 2):
        one, other = sorted(pair, key=lambda row: published.rows[name_of(row)])
        apart = published.rows[name_of(other)] - published.rows[name_of(one)]
        axes = [axis for axis, name in one.names.items() if other.names[axis] != name]
        here = difference(other.entries[published.number].values, one.entries[published.number].values)
        if len(axes) == 1 and apart and here is not None:
            yield Pair(axes[0], one, other, apart, here)


def as_values(comparison: Comparison) -> Mapping[str, Any]:
    """Return a comparison as `study.json` has it."""
    return {
        "source": comparison.published.source,
        "number": comparison.published.number,
        "rows": [
            {**row.values, "published": comparison.there(row), "mean": comparison.here(row).value}
            | {"standard_error": comparison.here(row).error}
            for row in comparison.rows
        ],
        "pairs": [
            {"axis": pair.axis, "one": name_of(pair.one), "other": name_of(pair.other), "published": pair.published}
            | {"mean": pair.here.value, "standard_error": pair.here.error, "verdict": pair.verdict}
            for pair in comparison.pairs
        ],
    }
