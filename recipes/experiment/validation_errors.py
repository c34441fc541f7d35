"""Turns validation errors of recipes into lines for the user: the key, what is wrong, and what is allowed."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from ..support.errors import UserError
from ..support.names import did_you_mean
from ..support.schema import Section
from ..support.trust import Trust
from .components import ComponentFields, ComponentSlot
from .recipe import Recipe

MAX_LENGTH = 200
"""The number of characters of a value that an error repeats."""


def error_lines(error: ValidationError, table: dict[str, Any], trust: Trust) -> list[str]:
    """Return one line for each key that is not valid.

    Args:
        error: what pydantic raised.
        table: the recipe that was validated.
        trust: the trust with which it was validated, to find the fields of components.
    """
    lines: dict[str, list[str]] = {}
    for one in error.errors():
        path, known = _keys_at(one["loc"], table, trust)
        if one["type"] == "extra_forbidden":
            text = f"unknown key{did_you_mean(path[-1], known)}; known: {', '.join(known)}"
        elif one["type"] == "missing":
            text = "is missing" if path and path[-1] == one["loc"][-1] else "has too few entries"
        else:
            text = one["msg"].removeprefix("Value error, ").removeprefix("Input ")
            if not isinstance(one["input"], dict) and one["type"] != "component":
                text += f", got {shorten(repr(one['input']))}"
        lines.setdefault(".".join(path), []).append(text)
    return [f"{key + ': ' if key else ''}{', or '.join(texts)}" for key, texts in lines.items()]


def shorten(text: str) -> str:
    """Return a text to be repeated in an error: its first `MAX_LENGTH` characters, if it is longer."""
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]}..."


def section_at(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """Return the section at a key of a section; None if the key has a component or a plain value."""
    annotation = model.model_fields[key].annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _keys_at(location: Sequence[str | int], table: Any, trust: Trust) -> tuple[list[str], list[str]]:
    """Return the path of keys to a location in a recipe, and the keys that are allowed in place of the last of them."""
    model: type[BaseModel] | None = Recipe
    path: list[str] = []
    known: list[str] = []
    for part in location:
        if model is None or not isinstance(part, str):
            break
        known = [*(["kind"] if issubclass(model, ComponentFields) else []), *model.model_fields]
        path.append(part)
        if part not in model.model_fields:
            break
        table = table.get(part) if isinstance(table, dict) else None
        model = section_at(model, part) or _fields_at(model, part, table, trust)
    return path, known


def _fields_at(model: type[BaseModel], key: str, value: Any, trust: Trust) -> type[ComponentFields] | None:
    """Return the fields of the component at a key of a section; None if there is no component, or an unknown one."""
    for slot in model.model_fields[key].metadata:
        if isinstance(slot, ComponentSlot):
            kind = value.get("kind", slot.default_kind) if isinstance(value, dict) else value
            try:
                return slot.fields_model(slot.find(str(kind), trust))
            except UserError:
                return None
    return None
