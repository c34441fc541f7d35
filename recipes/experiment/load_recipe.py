"""Load a recipe in Python: `sitkit.recipes.load_recipe`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..support.trust import TRUST_EVERYTHING, Trust
from .read_recipe import read_recipe
from .recipe import Recipe
from .settings import settings_from_table, trust_in_settings

Settings = Mapping[str, Any] | Sequence[str]
"""Values over a recipe's, by dotted key: {"train.steps": 200, "path": "gvp"}, or ["train.steps=200", "path=gvp"]."""


def load_recipe(source: str | Path, settings: Settings = (), *, trust: bool = False) -> Recipe:
    """Return the recipe of a preset, a TOML file or a `recipe.json`.

    Args:
        source: the name of a preset, such as `digits`, or a file.
        settings: values over the recipe's, as `--set` takes them.
        trust: whether code outside of sitkit that a `recipe.json` names may run. TOML files are trusted.

    Raises:
        UserError: there is no such recipe, or it or a setting is not valid; one line for each error.
    """
    pairs = pairs_of(settings)
    return read_recipe(str(source), pairs, trust_of(trust, pairs))


def pairs_of(settings: Settings) -> tuple[str, ...]:
    """Return settings as `key=value` texts.

    Raises:
        ValueError: they are one text.
    """
    if isinstance(settings, str):
        raise ValueError(f'give settings as {{"key": value}} or ["key=value"], got the text {settings!r}')
    return settings_from_table(settings) if isinstance(settings, Mapping) else tuple(settings)


def trust_of(trust: bool, settings: Sequence[str] = ()) -> Trust:
    """Return trust in all code if `trust`, or else in what settings name."""
    return TRUST_EVERYTHING if trust else trust_in_settings(settings)
