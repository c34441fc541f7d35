"""The results of a study: for each row of its table the metrics by seed, and which rows are like the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..support.errors import UserError
from ..support.names import did_you_mean
from .grid import GridPoint, StudyGrid
from .statistics import Estimate, SeedValues, difference
from .study_file import Axis, Study
from .study_folder import StudyFolder


@dataclass(frozen=True, eq=False)
class ResultRow:
    """A row of the table: names and values of its variants by axis, its NFE, and its metrics by name.

    It has no NFE and no metrics if nothing of it was measured.
    """

    names: Mapping[str, str]
    values: Mapping[str, Any]
    calls: int | None
    entries: Mapping[str, SeedValues]

    @property
    def name(self) -> str:
        """The names of its variants."""
        return ", ".join(self.names.values())


@dataclass(frozen=True, eq=False)
class StudyResults:
    """The rows of a study, in its order, and the names of the metrics in its tables."""

    study: Study
    rows: tuple[ResultRow, ...]
    metrics: tuple[str, ...]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What was varied."""
        return self.study.axes

    @cached_property
    def best(self) -> dict[str, ResultRow]:
        """The row nearest to real images, by metric, among the rows with the most seeds; none if that is unknown."""
        found = {}
        for metric in self.metrics:
            known = [row for row in self.rows if metric in row.entries and row.entries[metric].real is not None]
            most = max((len(row.entries[metric].values) for row in known), default=0)
            if whole := [row for row in known if len(row.entries[metric].values) == most]:
                found[metric] = min(whole, key=lambda row: row.entries[metric].distance.value)
        return found

    def behind(self, row: ResultRow, metric: str) -> Estimate | None:
        """Return how much farther from real images than the best a row is, over common seeds; None for the best."""
        best = self.best.get(metric)
        if best is None or best is row or metric not in row.entries:
            return None
        return difference(row.entries[metric].distances, best.entries[metric].distances)

    def like_best(self, row: ResultRow, metric: str) -> bool:
        """Return whether a row is not significantly behind the best."""
        behind = self.behind(row, metric)
        return behind is not None and behind.error is not None and not behind.significant


def collect(study: Study, grid: StudyGrid, folder: StudyFolder) -> StudyResults:
    """Return what has been measured so far.

    Raises:
        UserError: the study names a metric that no cell has.
    """
    measured = {key: folder.measured(cell) for key, cell in grid.cells.items() if folder.done(cell)}
    known = list(dict.fromkeys(name for found in measured.values() for name in found["numbers"]))
    metrics = study.content.measure.numbers or tuple(known)
    for name in metrics if known else ():
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"{study.file}: measure.numbers: no '{name}' was measured{hint}; known: {', '.join(known)}")
    groups: dict[tuple[str, ...], list[GridPoint]] = {}
    for point in grid.points:
        groups.setdefault(tuple(variant.name for variant in point.variants), []).append(point)
    return StudyResults(study, tuple(_row(study, points, measured, metrics) for points in groups.values()), metrics)


def _row(study: Study, points: Sequence[GridPoint], measured: Mapping[str, Any], metrics: Sequence[str]) -> ResultRow:
    found = {point.seed: measured[point.cell.key] for point in points if point.cell.key in measured}
    entries = {}
    for name in metrics:
        if numbers := {seed: one["numbers"][name] for seed, one in found.items() if name in one["numbers"]}:
            values = {seed: float(number["mean"]) for seed, number in numbers.items()}
            entries[name] = SeedValues(values, next(iter(numbers.values()))["real"])
    variants = {axis.name: variant for axis, variant in zip(study.axes, points[0].variants, strict=True)}
    return ResultRow(
        names={axis: variant.name for axis, variant in variants.items()},
        values={axis: variant.value for axis, variant in variants.items()},
        calls=next((one["calls"] for one in found.values()), None),
        entries=entries,
    )
