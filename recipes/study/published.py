"""Published values of the rows of a study, and whether its seeds give the same order."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..support.errors import UserError
from .results import ResultRow, StudyResults
from .statistics import Estimate, difference
from .study_file import PublishedSection, check_metric

REVERSED, AS_PUBLISHED, UNKNOWN = VERDICTS = ("the other way", "as published", "not told apart")


@dataclass(frozen=True, eq=False)
class RowPair:
    """Two rows that differ on one axis, the lower published value first; both differences are other minus one."""

    axis: str
    one: ResultRow
    other: ResultRow
    published: float
    here: Estimate

    @property
    def verdict(self) -> str:
        """The order that the seeds give."""
        if not self.here.significant:
            return UNKNOWN
        return AS_PUBLISHED if self.here.value > 0 else REVERSED


@dataclass(frozen=True, eq=False)
class PublishedComparison:
    """Published values beside measured ones: the rows that have both, in the study's order, and their pairs."""

    published: PublishedSection
    rows: tuple[ResultRow, ...]
    pairs: tuple[RowPair, ...]

    def there(self, row: ResultRow) -> float:
        """Return the published value of a row."""
        return self.published.rows[row.name]

    def here(self, row: ResultRow) -> Estimate:
        """Return the measured value of a row."""
        return row.entries[self.published.number].mean

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of pairs with each verdict, by axis."""
        found: dict[str, dict[str, int]] = {}
        for pair in self.pairs:
            found.setdefault(pair.axis, dict.fromkeys(VERDICTS, 0))[pair.verdict] += 1
        return found

    def describe(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "source": self.published.source,
            "number": self.published.number,
            "rows": [{**row.values, "published": self.there(row), **self.here(row).describe()} for row in self.rows],
            "pairs": [
                {"axis": pair.axis, "one": pair.one.name, "other": pair.other.name, "published": pair.published}
                | {**pair.here.describe(), "verdict": pair.verdict}
                for pair in self.pairs
            ],
        }


def compare(results: StudyResults) -> PublishedComparison | None:
    """Return published values beside those measured so far; None if the study has none.

    Raises:
        UserError: the metric of the published values is not in the tables.
    """
    published = results.study.content.published
    if published is None:
        return None
    try:
        check_metric(published, results.metrics)
    except UserError as problem:
        raise UserError(f"{results.study.file}: {problem}") from None
    rows = [row for row in results.rows if published.number in row.entries and row.name in published.rows]
    return PublishedComparison(published, tuple(rows), tuple(_pairs(rows, published)))


def _pairs(rows: list[ResultRow], published: PublishedSection) -> Iterator[RowPair]:
    for pair in itertools.combinations(rows, 2):
        one, other = sorted(pair, key=lambda row: published.rows[row.name])
        apart = published.rows[other.name] - published.rows[one.name]
        axes = [axis for axis, name in one.names.items() if other.names[axis] != name]
        here = difference(other.entries[published.number].values, one.entries[published.number].values)
        if len(axes) == 1 and apart and here is not None:
            yield RowPair(axes[0], one, other, apart, here)
