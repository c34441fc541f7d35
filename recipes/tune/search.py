"""Search among recipes: all combinations if they are few, and else one key after the other."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

from ..experiment.recipe import Recipe
from ..study.definition import Axis, Variant
from ..support.errors import UserError
from .candidates import changed

MOST_COMBINATIONS = 24
MOST_ROUNDS = 3

Score = Callable[[Recipe], float | None]
"""How far from the aim a recipe is, None if it cannot be said."""


def combinations(axes: Sequence[Axis]) -> int:
    """Return how many there are."""
    return math.prod(len(axis.variants) for axis in axes)


def search(own: Recipe, axes: Sequence[Axis], score: Score) -> Recipe:
    """Return the recipe of the lowest score that is found, `own` if none is lower.

    All combinations are tried if they are `MOST_COMBINATIONS` or fewer. Otherwise each key in its turn takes the value
    that is best beside those of the others, until a round over all keys changes nothing, `MOST_ROUNDS` at most.

    Args:
        own: where to start; it has a score.
        axes: the keys, with their values.
        score: asked again for the same recipe now and then.
    """
    if combinations(axes) <= MOST_COMBINATIONS:
        everything = itertools.product(*(axis.variants for axis in axes))
        return _best(own, _reachable(own, everything), score)
    found = own
    for _ in range(MOST_ROUNDS):
        before = found
        for axis in axes:
            found = _best(found, _reachable(found, ((variant,) for variant in axis.variants)), score)
        if found == before:
            break
    return found


def _reachable(recipe: Recipe, changes: Iterator[tuple[Variant, ...]]) -> Iterator[Recipe]:
    """Give the recipes that changes lead to, of those changes that go together."""
    for change in changes:
        try:
            yield changed(recipe, *change)
        except UserError:
            continue


def _best(start: Recipe, others: Iterator[Recipe], score: Score) -> Recipe:
    best, lowest = start, score(start)
    for one in others:
        value = score(one)
        if value is not None and (lowest is None or value < lowest):
            best, lowest = one, value
    return best
