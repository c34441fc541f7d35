"""The grid of a study: networks to train, and cells, each a network with one way to sample from it, to evaluate.

The key of a network is a digest of the part of its recipe that concerns training; that of a cell, of its network's key
and the rest of the recipe, with `auto` resolved. So equal ones are computed once, within a study and between studies.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
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
from .study_file import MOST_SEEDS, Study, Variant

OF_SAMPLING = ("sampler", "guidance", "evaluation")
"""The parts of a recipe that can be chosen after training."""


@dataclass(frozen=True)
class Network:
    """A network to train. Its recipe has the default sampler, guidance and evaluation."""

    key: str
    recipe: Recipe


@dataclass(frozen=True)
class Cell:
    """A network and a way to sample from it, to evaluate."""

    key: str
    network: Network
    recipe: Recipe
    average: str

    @property
    def sampling_seed(self) -> int:
        """The seed of the first draw, which depends on the training seed and is never one itself."""
        return MOST_SEEDS * (self.recipe.seed + 1)


@dataclass(frozen=True)
class GridPoint:
    """A variant of each axis, and a seed."""

    variants: tuple[Variant, ...]
    seed: int
    cell: Cell

    def name(self, training: bool = False) -> str:
        """Return the names of its variants, or of those that concern training, and the seed."""
        names = [variant.name for variant in self.variants if not training or _trains(variant)]
        return ", ".join([*names, f"seed {self.seed}"])


@dataclass(frozen=True)
class StudyGrid:
    """All points of a study; the seeds of a row of its table are side by side."""

    points: tuple[GridPoint, ...]

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """The distinct cells, by key."""
        return {point.cell.key: point.cell for point in self.points}

    @cached_property
    def networks(self) -> dict[str, Network]:
        """The distinct networks, by key."""
        return {cell.network.key: cell.network for cell in self.cells.values()}

    @cached_property
    def names(self) -> dict[str, str]:
        """The name of each cell and network, by key; several points may share one."""
        found: dict[str, dict[str, None]] = {}
        for point in self.points:
            found.setdefault(point.cell.key, {})[point.name()] = None
            found.setdefault(point.cell.network.key, {})[point.name(training=True)] = None
        return {key: " = ".join(names) for key, names in found.items()}


def grid_of(study: Study) -> StudyGrid:
    """Return all combinations of the variants of a study's axes, with each seed.

    Raises:
        UserError: a combination is not a valid recipe.
    """
    return StudyGrid(tuple(_points(study)))


def _points(study: Study) -> Iterator[GridPoint]:
    with _errors_name(f"{study.file}: set"):
        base = read_recipe(study.base, study.settings).model_dump(mode="json")
    average = study.content.measure.average
    networks: dict[str, Network] = {}
    for variants in itertools.product(*(axis.variants for axis in study.axes)):
        settings = [setting for variant in variants for setting in variant.settings]
        name = ", ".join(variant.name for variant in variants) or "set"
        for seed in study.content.seeds:
            with _errors_name(f"{study.file}: {name}"):
                recipe = recipe_from_table(base, (*settings, f"seed={seed}"), TRUST_EVERYTHING)
                _check_average(average, recipe)
                network = _network(recipe)
                network = networks.setdefault(network.key, network)
                sampling = resolve_auto(recipe).model_dump(mode="json", include=set(OF_SAMPLING))
            yield GridPoint(variants, seed, Cell(_key([network.key, sampling, average]), network, recipe, average))


@contextmanager
def _errors_name(where: str) -> Iterator[None]:
    """Put the place of an error in a study's file before each of its lines."""
    try:
        yield
    except UserError as problem:
        raise UserError("\n".join(f"{where}: {line}" for line in str(problem).splitlines())) from None


def _check_average(name: str, recipe: Recipe) -> None:
    known = recipe.ema.names
    if name not in known and not (name.startswith("width-") and recipe.ema.widths):
        raise UserError(
            f"measure.average: there will be no '{name}'{did_you_mean(name, known)}; known: {', '.join(known)}"
        )


def _network(recipe: Recipe) -> Network:
    """Return the network of a recipe."""
    trained = recipe_from_table(recipe.model_dump(mode="json", exclude=set(OF_SAMPLING)), trust=TRUST_EVERYTHING)
    resolved = resolve_auto(trained).model_dump(mode="json", exclude=set(OF_SAMPLING))
    return Network(_key(with_old_keys(resolved)), trained)


def _trains(variant: Variant) -> bool:
    """Return whether a variant concerns training."""
    return any(setting.partition("=")[0].partition(".")[0] not in OF_SAMPLING for setting in variant.settings)


def _key(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
