"""From tables of a TOML file to the `key=value` settings that recipes take, and back to words for a reader."""

import json
from collections.abc import Mapping
from typing import Any

from ..support.schema import Section
from .recipe import Recipe

SECTIONS = frozenset(
    key
    for key, field in Recipe.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
)
"""The parts of a recipe that are no components, of which one has a key `kind` all the same."""


def settings_of(table: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one setting for each value of a table, whose keys may be dotted or nested.

    A table with a `kind` is a component, and put whole: nothing of the component that stood there is left.
    """
    return tuple(f"{key}={toml(value)}" for key, value in leaves(table).items())


def leaves(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested tables by dotted key; a component is a value."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        descend = isinstance(value, Mapping) and ("kind" not in value or prefix + key in SECTIONS)
        found |= leaves(value, f"{prefix}{key}.") if descend else {prefix + key: value}
    return found


def toml(value: Any) -> str:
    """Return a value as TOML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False, default=str)


def word(value: Any) -> str:
    """Return a short word for a value: of a component its kind, with the fields that were given."""
    if isinstance(value, Mapping):
        fields = [f"{key} {word(inner)}" for key, inner in value.items() if key != "kind"]
        return " ".join([str(value.get("kind", "")), *fields]).strip()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(word, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
