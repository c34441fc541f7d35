"""Reads JSON and TOML with limits on nesting and integers, and compares nested tables key by key."""

import json
import tomllib
from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 50
"""The deepest nesting of tables and lists that is read. Recipes have four levels."""
MAX_INTEGER = 2**63 - 1
"""Integers have 64 bits, as in the TOML standard."""


def read_toml(text: str) -> dict[str, Any]:
    """Return the table of a TOML file.

    Raises:
        ValueError: it is not TOML, is nested too deeply, or has an integer of more than 64 bits.
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
        ValueError: it is not JSON, is nested too deeply, or has an integer of more than 64 bits.
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
    """Return the values of nested tables by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in table.items():
        leaves |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return leaves


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys at which two tables differ, with both values; None where a table lacks the key."""
    flat, others = flatten(one), flatten(other)
    return {key: (flat.get(key), others.get(key)) for key in flat | others if flat.get(key) != others.get(key)}
