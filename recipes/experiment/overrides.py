"""Applies `key=value` settings to recipes."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from ..support.errors import UserError
from ..support.trust import TRUST_NOTHING, Trust
from .recipe import Recipe
from .renamed_keys import settings_with_new_keys, with_new_keys
from .settings import parse_setting
from .validation_errors import error_lines, section_at, shorten


def recipe_from_table(table: dict[str, Any], settings: Sequence[str] = (), trust: Trust = TRUST_NOTHING) -> Recipe:
    """Return the recipe of a table, with `key=value` settings applied.

    A value is TOML; text that is not TOML is a string. A new kind of component drops the fields of the old one.
    A note is printed for the old name of a key (`renamed_keys`).

    Args:
        table: the keys of the recipe; keys that are missing take their defaults.
        settings: applied to the table in order.
        trust: the code outside of sitkit that both may name. `with_settings` adds the code that a recipe names.

    Raises:
        UserError: the table or a setting is not valid, or names code that is not trusted; one line for each error.
    """
    if not isinstance(table, dict):
        raise UserError(f"a recipe should be a table, got {shorten(repr(table))}")
    table = with_new_keys(table, notify=True)
    for setting in settings_with_new_keys(settings):
        keys, value = parse_setting(setting)
        table = with_new_keys(_set_key(table, keys, value), notify=True)
    try:
        return Recipe.model_validate_json(json.dumps(table, default=str), context=trust)
    except ValidationError as error:
        raise UserError("\n".join(error_lines(error, table, trust))) from None


def with_settings(recipe: Recipe, settings: Sequence[str], trust: Trust = TRUST_NOTHING) -> Recipe:
    """Return a recipe with `key=value` settings applied; they may name code that the recipe already names.

    Raises:
        UserError: a setting is not valid, or names code that is not trusted.
    """
    return recipe_from_table(recipe.model_dump(mode="json"), settings, trust | Trust.of(recipe))


def _set_key(table: Any, keys: list[str], value: Any, model: type[BaseModel] | None = Recipe) -> dict[str, Any]:
    """Return a copy of the table in which the key at the path `keys` has a value; `model` is the table's section."""
    if isinstance(table, str):
        table = {"kind": table}
    if not isinstance(table, dict) or (model is None and keys == ["kind"] and table.get("kind") != value):
        table = {}
    first, *rest = keys
    if not rest:
        return {**table, first: value}
    inner = section_at(model, first) if model and first in model.model_fields else None
    return {**table, first: _set_key(table.get(first), rest, value, inner)}
