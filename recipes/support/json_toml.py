"""Nested tables of plain values, as JSON and TOML have them: read within bounds, and compared key by key."""

import json
import tomllib
from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 50
"""How deeply tables and lists may be nested: those of a recipe are four deep."""
MAX_INTEGER = 2**63 - 1
"""Integers have 64 bits, as TOML says."""


def read_toml(text: str) -> dict[str, Any]:
    """Return the table of a TOML file.

    Raises:
        ValueError: it is no TOML, is nested too deeply, or has an integer of more than 64 bits.
    """
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check(table)
    return table


def read_json(text: str | bytes) -> Any:
    """Return the value of a JSON file.

    Raises:
        ValueError: it is no JSON, is nested too deeply, or has an integer of more than 64 bits.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check(value)
    return value


def _check(value: Any, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    if isinstance(value, int) and not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise ValueError("it has an integer of more than 64 bits")
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        _check(part, depth + 1)


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a table's values by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in table.items():
        leaves |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return leaves


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys at which two tables differ, with both values; None where there is none."""
    flat, others = flatten(one), flatten(other)
    return {key: (flat.get(key), others.get(key)) for key in flat | others if flat.get(key) != others.get(key)}
