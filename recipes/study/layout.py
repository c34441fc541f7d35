"""What a study consists of: networks to be trained, and cells, each a network with a way to use it, to be measured.

Each has a key, which is a function of what it depends on: a network's of the part of its recipe that concerns training,
a cell's of its network's and of the rest, `auto` resolved. So equal ones are one, in a study and between studies.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..experiment.auto_values import resolve_auto
from ..experiment.overrides import recipe_from_table
from ..experiment.read_recipe import read_recipe
from ..experiment.recipe import Recipe
from ..experiment.renamed_keys import with_old_keys
from ..support.errors import UserError
from ..support.names import did_you_mean
from ..support.trust import TRUST_EVERYTHING
from .definition import MOST_SEEDS, Study, Variant

OF_SAMPLING = ("sampler", "guidance", "evaluation")
"""The parts of a recipe that can be chosen after training."""


@dataclass(frozen=True)
class Model:
    """A network to be trained. Its recipe has the usual sampler, whatever those are that it is measured with."""

    key: str
    recipe: Recipe


@dataclass(frozen=True)
class Cell:
    """A network and a way to sample from it, to be measured."""

    key: str
    model: Model
    recipe: Recipe
    average: str

    @property
    def sampling_seed(self) -> int:
        """The seed of the first draw: another for each training seed, and none of those."""
        return MOST_SEEDS * (self.recipe.seed + 1)


@dataclass(frozen=True)
class Place:
    """A place in the table of a study: a variant on each axis, and a seed."""

    variants: tuple[Variant, ...]
    seed: int
    cell: Cell

    @property
    def name(self) -> str:
        """The place in words."""
        return self._name(self.variants)

    @property
    def network_name(self) -> str:
        """The place's network in words: those variants that concern training."""
        return self._name([variant for variant in self.variants if trains(variant)])

    def _name(self, variants: Sequence[Variant]) -> str:
        return ", ".join([*(variant.name for variant in variants), f"seed {self.seed}"])


@dataclass(frozen=True)
class Layout:
    """All places of a study, those of one row of its table side by side."""

    places: tuple[Place, ...]

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """Every cell by key, each once."""
        return {place.cell.key: place.cell for place in self.places}

    @cached_property
    def models(self) -> dict[str, Model]:
        """Every network by key, each once."""
        return {cell.model.key: cell.model for cell in self.cells.values()}

    @cached_property
    def names(self) -> dict[str, str]:
        """What each cell and network is, in words, by key; several places may have the same."""
        found: dict[str, dict[str, None]] = {}
        for place in self.places:
            found.setdefault(place.cell.key, {})[place.name] = None
            found.setdefault(place.cell.model.key, {})[place.network_name] = None
        return {key: " = ".join(names) for key, names in found.items()}


def trains(variant: Variant) -> bool:
    """Return whether a variant concerns training."""
    return any(setting.partition("=")[0].partition(".")[0] not in OF_SAMPLING for setting in variant.settings)


def lay_out(study: Study) -> Layout:
    """Return the places of a study: all combinations of its axes' variants, with each seed.

    Raises:
        UserError: a combination is no recipe.
    """
    return Layout(tuple(_places(study)))


def _places(study: Study) -> Iterator[Place]:
    base = _recipe(study.base, study.settings, f"{study.file}: set").model_dump(mode="json")
    models: dict[str, Model] = {}
    for variants in itertools.product(*(axis.variants for axis in study.axes)):
        settings = [setting for variant in variants for setting in variant.settings]
        where = f"{study.file}: {', '.join(variant.name for variant in variants) or 'set'}"
        for seed in study.written.seeds:
            recipe = _recipe(base, (*settings, f"seed={seed}"), where)
            _check_average(study.written.measure.average, recipe, where)
            model = _model(recipe, where)
            model = models.setdefault(model.key, model)
            average = study.written.measure.average
            used = {part: _resolved(recipe, where)[part] for part in OF_SAMPLING}
            yield Place(variants, seed, Cell(_key([model.key, used, average]), model, recipe, average))


def _recipe(base: str | dict[str, Any], settings: tuple[str, ...], where: str) -> Recipe:
    try:
        return (
            read_recipe(base, settings)
            if isinstance(base, str)
            else recipe_from_table(base, settings, TRUST_EVERYTHING)
        )
    except UserError as problem:
        raise UserError("\n".join(f"{where}: {line}" for line in str(problem).splitlines())) from None


def _check_average(name: str, recipe: Recipe, where: str) -> None:
    known = recipe.ema.names
    if name not in known and not (name.startswith("width-") and recipe.ema.widths):
        raise UserError(
            f"{where}: measure.average: there will be no '{name}'{did_you_mean(name, known)}; {', '.join(known)}"
        )


def _model(recipe: Recipe, where: str) -> Model:
    """Return the network of a recipe."""
    table = {key: value for key, value in recipe.model_dump(mode="json").items() if key not in OF_SAMPLING}
    trained = recipe_from_table(table, trust=TRUST_EVERYTHING)
    resolved = {key: value for key, value in _resolved(trained, where).items() if key not in OF_SAMPLING}
    return Model(_key(with_old_keys(resolved)), trained)


def _resolved(recipe: Recipe, where: str) -> dict[str, Any]:
    try:
        return resolve_auto(recipe).model_dump(mode="json")
    except UserError as problem:
        raise UserError(f"{where}: {problem}") from None


def _key(value: Any) -> str:
    """Return twelve digits that stand for a value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
