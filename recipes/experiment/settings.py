"""`key=value` settings of recipes: parsed from text, made of TOML tables, and shortened for tables and plots."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..support.errors import UserError
from ..support.json_toml import MAX_DEPTH, read_toml
from ..support.schema import Section
from ..support.trust import Trust
from .recipe import Recipe
from .validation_errors import shorten

SECTIONS = frozenset(
    key
    for key, field in Recipe.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
)
"""The sections of a recipe. They are not components, although `sampler` has a key `kind`."""


def parse_setting(setting: str) -> tuple[list[str], Any]:
    """Return the keys and the value of a setting `first.second=value`.

    Raises:
        UserError: it is not of this form.
    """
    if not setting.isascii():
        try:
            setting.encode()
        except UnicodeEncodeError:
            raise UserError(f"--set {shorten(ascii(setting))} is not UTF-8: rename what it names") from None
    key, equals, value = setting.partition("=")
    keys = key.split(".")
    if not equals or not all(keys) or len(keys) > MAX_DEPTH:
        raise UserError(f"--set takes key=value, such as train.steps=100, got '{shorten(setting)}'")
    return keys, _parse_value(value)


def _parse_value(text: str) -> Any:
    try:
        return read_toml(f"value = {text}")["value"]
    except (ValueError, KeyError):
        pass
    try:
        return float(text)  # such as .5 or 1., which are not TOML
    except ValueError:
        return text


def trust_in_settings(settings: Sequence[str]) -> Trust:
    """Return trust in the code that settings name: the user has typed them.

    Raises:
        UserError: a setting is not of the form key=value.
    """
    return Trust.of(*(parse_setting(setting)[1] for setting in settings))


def settings_from_table(table: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one setting for each value of a table, whose keys may be dotted or nested.

    A table with a `kind` is a component and makes one setting, which replaces the component that was there.
    """
    return tuple(f"{key}={toml_value(value)}" for key, value in flatten_settings(table).items())


def flatten_settings(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested tables by dotted key; a component is one value."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        descend = isinstance(value, Mapping) and ("kind" not in value or prefix + key in SECTIONS)
        found |= flatten_settings(value, f"{prefix}{key}.") if descend else {prefix + key: value}
    return found


def toml_value(value: Any) -> str:
    """Return a value as TOML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False, default=str)


def short_text(value: Any) -> str:
    """Return a short text for a value; for a component, its kind and the fields that were given."""
    if isinstance(value, Mapping):
        fields = [f"{key} {short_text(inner)}" for key, inner in value.items() if key != "kind"]
        return " ".join([str(value.get("kind", "")), *fields]).strip()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(short_text, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
