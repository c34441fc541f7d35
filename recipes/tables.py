"""Nested tables of plain values, as JSON and TOML have them, compared key by key."""

from collections.abc import Mapping
from typing import Any


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a table's values by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in table.items():
        leaves |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return leaves


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys at which two tables differ, with both values; None where there is none."""
    flat, others = flatten(one), flatten(other)
    return {key: (flat.get(key), others.get(key)) for key in flat | others if flat.get(key) != others.get(key)}
