"""A study: a base recipe, what is varied of it, and what is measured.

```toml
base = "digits"                          # a preset, or a TOML file: beside this one, or where the command is run
seeds = [0, 1, 2]                        # of training

[set]                                    # of every recipe
guidance.scale = 1.0
evaluation.draws = 2

[axes]                                   # any key of a recipe, with its values
path.kind = ["linear", "gvp"]
sampler.steps = [10, 50]

[axes.model]                             # or, by another word, named variants: each sets what it likes
velocity = {}
score = { objective.predict = "score", objective.measure = "velocity" }

[measure]
numbers = ["share of the wanted class"]  # to be tabled; all by default

[published]                              # what others found of some rows, to be set beside them
source = "FID of 50,000 samples, SiT-B/2 (arXiv 2401.08740, table 6)"
number = "Frechet distance of pixels"    # which of the numbers it is compared with

[published.rows]
"velocity, 50" = 33.0
```

Keys that begin with `sampler`, `guidance` or `evaluation` say how a trained run is used; all others, what is trained.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from ..experiment.packaged import presets
from ..experiment.recipe import Recipe
from ..experiment.settings import settings_from_table, short_text, toml_value
from ..storage.files import read_regular
from ..support.errors import UserError
from ..support.json_toml import read_toml
from ..support.names import did_you_mean
from ..support.schema import Section

TAKEN = ("seed", "network", "cell", "calls", "network_rows", "sampling_seed", "numbers", "report")
"""What rows of results call their own columns."""
MOST_SEEDS = 10**6
"""Training seeds are below it, seeds of sampling above."""


def _seeds(values: tuple[int, ...]) -> tuple[int, ...]:
    if not values or len(set(values)) < len(values) or not all(0 <= seed < MOST_SEEDS for seed in values):
        raise ValueError(f"should be different whole numbers from 0 to {MOST_SEEDS - 1}, one at least")
    return values


class Measure(Section):
    """What is measured of each sampler: the numbers of `sitkit evaluate` that are tabled, all if none is named."""

    numbers: tuple[str, ...] = ()
    average: str = "ema"


class Published(Section):
    """What was published of some rows, by their variants' names, where, and which number stands beside it here."""

    source: str
    number: str
    rows: dict[str, float]


class Written(Section):
    """A study as its file has it."""

    title: str = ""
    base: str
    seeds: Annotated[tuple[int, ...], AfterValidator(_seeds)]
    set: dict[str, Any] = Field(default={})
    axes: dict[str, Any] = Field(default={})
    measure: Measure = Measure()
    published: Published | None = None


SECTIONS: Mapping[str, type[Section]] = {"measure": Measure, "published": Published}
"""Of a study's file, by name."""


@dataclass(frozen=True)
class Variant:
    """One value on an axis: its name, the value itself (the name, where variants are named), and its settings."""

    name: str
    value: Any
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Axis:
    """What is varied: its name, which is the key if it is one of a recipe, and its variants."""

    name: str
    variants: tuple[Variant, ...]

    @property
    def numeric(self) -> bool:
        """Whether all values are numbers, two at least."""
        values = [variant.value for variant in self.variants]
        return len(values) > 1 and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        )


@dataclass(frozen=True)
class Study:
    """A study that has been read."""

    file: Path
    written: Written
    base: str
    settings: tuple[str, ...]
    axes: tuple[Axis, ...]

    @property
    def title(self) -> str:
        """What to call it."""
        return self.written.title or self.file.stem


def read_study(file: Path) -> Study:
    """Return the study of a TOML file.

    Raises:
        UserError: the file cannot be read, or is no study; one line an error.
    """
    try:
        table = read_toml(read_regular(file).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except ValueError as error:
        raise UserError(f"{file} is not TOML: {error}") from error
    try:
        written = Written.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        raise UserError("\n".join(f"{file}: {line}" for line in _explain(error))) from None
    try:
        axes = tuple(_axes(written.axes))
        if written.published:
            _check_rows(written.published, axes)
            check_number(written.published, written.measure.numbers)
    except UserError as problem:
        raise UserError(f"{file}: {problem}") from None
    beside = file.parent / written.base
    base = str(beside) if written.base not in presets() and beside.is_file() else written.base
    settings = settings_from_table(written.set)
    for one in (*settings, *(setting for axis in axes for variant in axis.variants for setting in variant.settings)):
        if one.startswith("seed="):
            raise UserError(f"{file}: {one}: the seeds of a study are `seeds = [0, 1, 2]` at its top")
    return Study(file, written, base, settings, axes)


def _axes(table: Mapping[str, Any]) -> Iterator[Axis]:
    for name, value in table.items():
        if isinstance(value, Mapping) and name.partition(".")[0] not in Recipe.model_fields:
            yield _named(name, value)
        else:
            yield from _keyed(name, value)


def _keyed(key: str, value: Any) -> Iterator[Axis]:
    """Give the axes of a key of a recipe, or of all keys below it."""
    if isinstance(value, Mapping):
        for inner, below in value.items():
            yield from _keyed(f"{key}.{inner}", below)
        return
    if not isinstance(value, list) or not value:
        raise UserError(
            f"axes.{key}: a list of values is wanted, got {toml_value(value)}; named variants stand in a table whose "
            f"name is no key of a recipe, such as [axes.'the {key.partition('.')[0]}']"
        )
    yield _checked(Axis(key, tuple(Variant(short_text(one), one, settings_from_table({key: one})) for one in value)))


def _named(name: str, table: Mapping[str, Any]) -> Axis:
    if name in TAKEN:
        raise UserError(f"axes.{name}: rows have a column of that name already; call the axis otherwise")
    for variant, settings in table.items():
        if not isinstance(settings, Mapping):
            known = did_you_mean(name, [*Recipe.model_fields])
            raise UserError(f"axes.{name}.{variant}: a table of settings is wanted, got {toml_value(settings)}{known}")
    if not table:
        raise UserError(f"axes.{name}: there are no variants")
    return Axis(name, tuple(Variant(variant, variant, settings_from_table(given)) for variant, given in table.items()))


def _checked(axis: Axis) -> Axis:
    names = [variant.name for variant in axis.variants]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"axes.{axis.name}: {twice[0]} is given twice")
    return axis


def check_number(published: Published, tabled: tuple[str, ...]) -> None:
    """Raise a problem unless the number that was published is tabled, as far as it is known what is."""
    if tabled and published.number not in tabled:
        said = f"'{published.number}' is not tabled{did_you_mean(published.number, [*tabled])}"
        raise UserError(f"published.number: {said}; known: {', '.join(tabled)}")


def _check_rows(published: Published, axes: tuple[Axis, ...]) -> None:
    known = [", ".join(names) for names in itertools.product(*([one.name for one in axis.variants] for axis in axes))]
    for name in published.rows:
        if name not in known:
            raise UserError(
                f"published.rows: no row '{name}'{did_you_mean(name, known)}; rows are called as '{known[0]}'"
            )


def _explain(error: ValidationError) -> Iterator[str]:
    for one in error.errors():
        *above, last = (str(part) for part in one["loc"])
        known = [*SECTIONS.get(above[0] if above else "", Written).model_fields]
        key = ".".join([*above, last])
        if one["type"] == "extra_forbidden":
            yield f"{key}: unknown key{did_you_mean(last, known)}; known: {', '.join(known)}"
        elif one["type"] == "missing":
            yield f"{key} is missing"
        else:
            text = one["msg"].removeprefix("Value error, ").removeprefix("Input ")
            yield f"{key}: {text}, got {toml_value(one['input'])}"
