"""The TOML file of a study: a base recipe, what is varied, and which metrics are reported.

```toml
base = "digits"                          # a preset, or a TOML file beside this one or in the working directory
seeds = [0, 1, 2]                        # training seeds

[set]                                    # applied to every recipe
guidance.scale = 1.0

[axes]                                   # any key of a recipe, with its values
path.kind = ["linear", "gvp"]

[axes.model]                             # a name that is not a key: named variants, each with several settings
velocity = {}
score = { objective.predict = "score", objective.measure = "velocity" }

[measure]
numbers = ["share of the wanted class"]  # the metrics of the tables; by default all

[published]                              # published values to compare with
source = "FID of 50,000 samples, SiT-B/2 (arXiv 2401.08740, table 6)"
number = "Frechet distance of pixels"    # the metric to compare them with

[published.rows]
"linear, velocity" = 33.0
```

Keys that start with `sampler`, `guidance` or `evaluation` set how a network is used; all others set what is trained.
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

RESERVED = ("seed", "network", "cell", "calls", "network_rows", "sampling_seed", "numbers", "report")
"""The other columns of the rows in `study.json`."""
MOST_SEEDS = 10**6
"""Training seeds are below it, sampling seeds above."""


def _seeds(values: tuple[int, ...]) -> tuple[int, ...]:
    if not values or len(set(values)) < len(values) or not all(0 <= seed < MOST_SEEDS for seed in values):
        raise ValueError(f"should be different whole numbers from 0 to {MOST_SEEDS - 1}, at least one")
    return values


class MeasureSection(Section):
    """Which metrics of `sitkit evaluate` are in the tables, all by default, and which EMA is evaluated."""

    numbers: tuple[str, ...] = ()
    average: str = "ema"


class PublishedSection(Section):
    """Published values of rows, by the names of their variants; their source; the metric that they compare with."""

    source: str
    number: str
    rows: dict[str, float]


class StudyFile(Section):
    """The content of a study's file."""

    title: str = ""
    base: str
    seeds: Annotated[tuple[int, ...], AfterValidator(_seeds)]
    set: dict[str, Any] = Field(default={})
    axes: dict[str, Any] = Field(default={})
    measure: MeasureSection = MeasureSection()
    published: PublishedSection | None = None


SECTIONS: Mapping[str, type[Section]] = {"measure": MeasureSection, "published": PublishedSection}


@dataclass(frozen=True)
class Variant:
    """One value of an axis: its name, its value (the name, for named variants), and its settings."""

    name: str
    value: Any
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Axis:
    """What is varied: a key of a recipe or another name, and its variants."""

    name: str
    variants: tuple[Variant, ...]

    @property
    def numeric(self) -> bool:
        """Whether it has at least two values, all of them numbers."""
        values = [variant.value for variant in self.variants]
        return len(values) > 1 and all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)


@dataclass(frozen=True)
class Study:
    """A study: its file, the file's content, the base recipe, the settings of every recipe, and the axes."""

    file: Path
    content: StudyFile
    base: str
    settings: tuple[str, ...]
    axes: tuple[Axis, ...]

    @property
    def title(self) -> str:
        """Its title, by default the name of the file."""
        return self.content.title or self.file.stem


def read_study(file: Path) -> Study:
    """Return the study of a TOML file.

    Raises:
        UserError: the file cannot be read, or is not a study; one line an error.
    """
    try:
        table = read_toml(read_regular(file).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except ValueError as error:
        raise UserError(f"{file} is not TOML: {error}") from error
    try:
        content = StudyFile.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        raise UserError("\n".join(f"{file}: {line}" for line in _explain(error))) from None
    try:
        settings, axes = settings_from_table(content.set), tuple(_axes(content.axes))
        _check(content, settings, axes)
    except UserError as problem:
        raise UserError(f"{file}: {problem}") from None
    beside = file.parent / content.base
    base = str(beside) if content.base not in presets() and beside.is_file() else content.base
    return Study(file, content, base, settings, axes)


def _axes(table: Mapping[str, Any]) -> Iterator[Axis]:
    for name, value in table.items():
        if isinstance(value, Mapping) and name.partition(".")[0] not in Recipe.model_fields:
            yield _named_axis(name, value)
        else:
            yield from _key_axes(name, value)


def _key_axes(key: str, value: Any) -> Iterator[Axis]:
    """Give the axes of a key of a recipe, or of all keys below it."""
    if isinstance(value, Mapping):
        for inner, below in value.items():
            yield from _key_axes(f"{key}.{inner}", below)
        return
    if not isinstance(value, list) or not value:
        raise UserError(
            f"axes.{key}: a list of values is wanted, got {toml_value(value)}; named variants stand in a table whose "
            f"name is no key of a recipe, such as [axes.'the {key.partition('.')[0]}']"
        )
    names = [short_text(one) for one in value]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"axes.{key}: {twice[0]} is given twice")
    yield Axis(
        key, tuple(Variant(name, one, settings_from_table({key: one})) for name, one in zip(names, value, strict=True))
    )


def _named_axis(name: str, table: Mapping[str, Any]) -> Axis:
    if name in RESERVED:
        raise UserError(f"axes.{name}: rows have a column of that name already; choose another name")
    for variant, settings in table.items():
        if not isinstance(settings, Mapping):
            known = did_you_mean(name, [*Recipe.model_fields])
            raise UserError(f"axes.{name}.{variant}: a table of settings is wanted, got {toml_value(settings)}{known}")
    if not table:
        raise UserError(f"axes.{name}: there are no variants")
    return Axis(name, tuple(Variant(variant, variant, settings_from_table(given)) for variant, given in table.items()))


def _check(content: StudyFile, settings: tuple[str, ...], axes: tuple[Axis, ...]) -> None:
    """Raise an error if a setting is a seed, or published values have no row or no metric."""
    for one in (*settings, *(setting for axis in axes for variant in axis.variants for setting in variant.settings)):
        if one.startswith("seed="):
            raise UserError(f"{one}: the seeds of a study are `seeds = [0, 1, 2]` at its top")
    if content.published is None:
        return
    check_metric(content.published, content.measure.numbers)
    rows = [", ".join(names) for names in itertools.product(*([one.name for one in axis.variants] for axis in axes))]
    for name in content.published.rows:
        if name not in rows:
            raise UserError(
                f"published.rows: no row '{name}'{did_you_mean(name, rows)}; rows are called as '{rows[0]}'"
            )


def check_metric(published: PublishedSection, tabled: tuple[str, ...]) -> None:
    """Raise an error unless the metric of published values is in the tables, if it is known what is."""
    if tabled and published.number not in tabled:
        hint = did_you_mean(published.number, [*tabled])
        raise UserError(
            f"published.number: '{published.number}' is not in the tables{hint}; known: {', '.join(tabled)}"
        )


def _explain(error: ValidationError) -> Iterator[str]:
    """Give a line for each key that is wrong."""
    for one in error.errors():
        *above, last = (str(part) for part in one["loc"])
        known = [*SECTIONS.get(above[0] if above else "", StudyFile).model_fields]
        key = ".".join([*above, last])
        if one["type"] == "extra_forbidden":
            yield f"{key}: unknown key{did_you_mean(last, known)}; known: {', '.join(known)}"
        elif one["type"] == "missing":
            yield f"{key} is missing"
        else:
            text = one["msg"].removeprefix("Value error, ").removeprefix("Input ")
            yield f"{key}: {text}, got {toml_value(one['input'])}"
