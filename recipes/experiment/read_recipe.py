"""Loads recipes: presets, TOML files, and the `recipe.json` of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..storage.files import read_regular
from ..support.errors import UserError
from ..support.json_toml import read_json, read_toml
from ..support.names import did_you_mean
from ..support.trust import TRUST_EVERYTHING, TRUST_NOTHING, Trust
from .overrides import recipe_from_table
from .packaged import presets
from .recipe import Recipe
from .renamed_keys import with_new_keys
from .settings import trust_in_settings


def read_recipe(source: str, settings: Sequence[str] = (), trust: Trust = TRUST_NOTHING) -> Recipe:
    """Return the recipe of a preset, a TOML file or a run's `recipe.json`, with `key=value` settings applied.

    Code that a preset or a TOML file names is trusted: the user chose the file. A `recipe.json` may come from
    anywhere, so code that it names is imported only if the settings name it as well, or if it is trusted.

    Args:
        source: the name of a preset, or the path of a file.
        settings: `key=value`, as `--set` takes them, applied in order.
        trust: the code outside of sitkit that a `recipe.json` may name.

    Raises:
        UserError: there is no such recipe, or it or a setting is not valid; one line for each error.
    """
    known = presets()
    if source in known:
        text = known[source]
    elif Path(source).is_file():
        try:
            text = read_regular(Path(source)).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{source} cannot be read: {error}") from error
    elif source.endswith((".toml", ".json")):
        raise UserError(f"there is no file {source}")
    else:
        raise UserError(
            f"no preset '{source}'{did_you_mean(source, [*known])}; known: {', '.join(known)}, "
            "or a TOML file or recipe.json"
        )
    if source.endswith(".json"):
        return _load_json(source, text, settings, trust)
    try:
        table = read_toml(text)
    except ValueError as error:
        raise UserError(f"{source} is not TOML: {error}") from error
    return recipe_from_table(table, settings, TRUST_EVERYTHING)


def _load_json(source: str, text: str, settings: Sequence[str], trust: Trust) -> Recipe:
    try:
        table = read_json(text)
    except ValueError as error:
        raise UserError(f"{source} is not JSON: {error}") from error
    if not isinstance(table, dict):
        raise UserError(f"{source} holds no recipe: it should be a table, as recipe.json of a run is")
    return recipe_from_table(table, settings, trust | trust_in_settings(settings))


def recipe_from_stored(table: dict[str, Any], trust: Trust = TRUST_NOTHING) -> Recipe:
    """Return the recipe of a table that this version or an earlier one has written to a file.

    Raises:
        UserError: the table is not valid, names code that is not trusted, or has a value whose meaning has changed.
    """
    train = table.get("train") if isinstance(table, dict) else None
    times, key = train.get("times") if isinstance(train, dict) else None, "train.times"
    while isinstance(times, dict):
        shift = times.get("shift")
        if (
            times.get("kind") == "shifted"
            and "towards" not in times
            and isinstance(shift, float)
            and shift not in (0, 1)
        ):
            raise UserError(
                f"{key}.shift = {shift} was written by a version in which shifts above 1 moved times towards the data; "
                f'now they move towards the noise: write "shift": {1 / shift:.6g}, "towards": "noise" there'
            )
        times, key = times.get("times"), f"{key}.times"
    return recipe_from_table(with_new_keys(table), trust=trust)
