"""Search among recipes: all combinations if they are few, else one key after the other."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..experiment.recipe import Recipe
from ..study.study_file import Axis, Variant
from ..support.errors import UserError
from .candidates import changed

MOST_COMBINATIONS = 24
MOST_ROUNDS = 3

Score = Callable[[Recipe], float | None]
"""Returns what is minimized; None for a recipe that fails."""


def combinations(axes: Sequence[Axis]) -> int:
    """Return the number of combinations."""
    return math.prod(len(axis.variants) for axis in axes)


def search(start: Recipe, axes: Sequence[Axis], score: Score) -> Recipe:
    """Return the recipe with the lowest score found, `start` if none is lower.

    Up to `MOST_COMBINATIONS` combinations are all tried. With more, each key in turn takes its best value with the
    other keys fixed, until a round over all keys changes nothing, or for `MOST_ROUNDS` rounds.

    Args:
        start: a recipe that has a score.
        axes: the keys, with their values.
        score: may be called again with the same recipe.
    """
    if combinations(axes) <= MOST_COMBINATIONS:
        return _best(start, itertools.product(*(axis.variants for axis in axes)), score)
    found = start
    for _ in range(MOST_ROUNDS):
        before = found
        for axis in axes:
            found = _best(found, ((variant,) for variant in axis.variants), score)
        if found == before:
            break
    return found


def _best(start: Recipe, changes: Iterable[tuple[Variant, ...]], score: Score) -> Recipe:
    best, lowest = start, score(start)
    for recipe in _valid(start, changes):
        value = score(recipe)
        if value is not None and (lowest is None or value < lowest):
            best, lowest = recipe, value
    return best


def _valid(start: Recipe, changes: Iterable[tuple[Variant, ...]]) -> Iterator[Recipe]:
    """Give the recipes with some changes, without those that are not valid."""
    for change in changes:
        try:
            yield changed(start, *change)
        except UserError:
            continue
