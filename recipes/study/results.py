"""What a study found: for each row of its table the numbers over seeds, and which cannot be told from the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..support.errors import UserError
from ..support.names import did_you_mean
from .definition import Axis, Study
from .folder import Folder
from .layout import Layout, Place
from .statistics import Mean, difference


@dataclass(frozen=True)
class Entry:
    """A number of a row: by seed, and what real images would give, None if nobody can tell."""

    values: Mapping[int, float]
    real: float | None

    @property
    def mean(self) -> Mean:
        """The mean over seeds."""
        return Mean.of(self.values)

    @property
    def distances(self) -> dict[int, float]:
        """How far from what real images would give, by seed."""
        return {seed: abs(value - (self.real or 0.0)) for seed, value in self.values.items()}


@dataclass(frozen=True, eq=False)
class Row:
    """A row of the table: names and values of its variants by axis, calls of the network, and numbers by name.

    It has no calls and no numbers if nothing of it was measured.
    """

    names: Mapping[str, str]
    values: Mapping[str, Any]
    calls: int | None
    entries: Mapping[str, Entry]


@dataclass(frozen=True, eq=False)
class Results:
    """What a study found: its rows, in its order, and the names of the numbers that are tabled."""

    study: Study
    rows: tuple[Row, ...]
    numbers: tuple[str, ...]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What was varied."""
        return self.study.axes

    @cached_property
    def best(self) -> dict[str, Row]:
        """Of each number the row nearest to what real images would give, if they have it, of rows with most seeds."""
        found = {}
        for number in self.numbers:
            having = [row for row in self.rows if number in row.entries and row.entries[number].real is not None]
            most = max((len(row.entries[number].values) for row in having), default=0)
            if whole := [row for row in having if len(row.entries[number].values) == most]:
                found[number] = min(whole, key=lambda row: Mean.of(row.entries[number].distances).value)
        return found

    def behind(self, row: Row, number: str) -> Mean | None:
        """Return how much further from real images than the best a row is, over the seeds that both have."""
        best = self.best.get(number)
        if best is None or best is row or number not in row.entries:
            return None
        return difference(row.entries[number].distances, best.entries[number].distances)

    def like_best(self, row: Row, number: str) -> bool:
        """Return whether these seeds cannot tell a row from the best; not so of the best itself."""
        behind = self.behind(row, number)
        return behind is not None and behind.error is not None and not behind.beyond


def collect(study: Study, layout: Layout, folder: Folder) -> Results:
    """Return what has been measured so far.

    Raises:
        UserError: the study asks for a number that no cell has.
    """
    measured = {key: folder.measured(cell) for key, cell in layout.cells.items() if folder.done(cell)}
    numbers = _numbers(study, measured)
    groups: dict[tuple[str, ...], list[Place]] = {}
    for place in layout.places:
        groups.setdefault(tuple(variant.name for variant in place.variants), []).append(place)
    return Results(study, tuple(_row(study, places, measured, numbers) for places in groups.values()), numbers)


def _numbers(study: Study, measured: Mapping[str, Any]) -> tuple[str, ...]:
    known = list(dict.fromkeys(name for found in measured.values() for name in found["numbers"]))
    wanted = study.written.measure.numbers
    for name in wanted if known else ():
        if name not in known:
            said = f"no '{name}' was measured{did_you_mean(name, known)}; known: {', '.join(known)}"
            raise UserError(f"{study.file}: measure.numbers: {said}")
    return wanted or tuple(known)


def _row(study: Study, places: Sequence[Place], measured: Mapping[str, Any], numbers: Sequence[str]) -> Row:
    found = {place.seed: measured[place.cell.key] for place in places if place.cell.key in measured}
    entries = {}
    for name in numbers:
        having = {seed: one["numbers"][name] for seed, one in found.items() if name in one["numbers"]}
        if having:
            values = {seed: float(one["mean"]) for seed, one in having.items()}
            entries[name] = Entry(values, next(iter(having.values()))["real"])
    pairs = [*zip(study.axes, places[0].variants, strict=True)]
    return Row(
        names={axis.name: variant.name for axis, variant in pairs},
        values={axis.name: variant.value for axis, variant in pairs},
        calls=next((one["calls"] for one in found.values()), None),
        entries=entries,
    )
