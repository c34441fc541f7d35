"""Recipes from presets, TOML files and `--set`, and back to TOML."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..storage.files import read_regular
from ..support.errors import UserError
from ..support.json_toml import DEEPEST, read_json, read_toml
from ..support.names import nearest
from ..support.schema import Section
from ..support.trust import EVERYTHING, NOTHING, Trust
from .components import ComponentFields, Slot
from .intervals import resolve
from .packaged import presets
from .recipe import Recipe
from .renamed_keys import settings_with_new_keys, with_new_keys

LONGEST = 200
"""How many letters of a value an error repeats."""


def read(source: str, settings: Sequence[str] = (), trust: Trust = NOTHING) -> Recipe:
    """Return the recipe of a preset, a TOML file or a run's `recipe.json`, with `key=value` settings put over it.

    Presets and TOML files are the user's own: what they name is imported. A `recipe.json` may come from anywhere: what
    it names is imported if settings name it as well, or if it is trusted.

    Raises:
        UserError: there is no such recipe, or it or a setting is not valid; one line an error.
    """
    if source in (known := presets()):
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
            f"no preset '{source}'{nearest(source, [*known])}; known: {', '.join(known)}, or a TOML file or recipe.json"
        )
    if source.endswith(".json"):
        return _read_json(source, text, settings, trust)
    try:
        table = read_toml(text)
    except ValueError as error:
        raise UserError(f"{source} is not TOML: {error}") from error
    return override(table, settings, EVERYTHING)


def _read_json(source: str, text: str, settings: Sequence[str], trust: Trust) -> Recipe:
    try:
        table = read_json(text)
    except ValueError as error:
        raise UserError(f"{source} is not JSON: {error}") from error
    if not isinstance(table, dict):
        raise UserError(f"{source} holds no recipe: it should be a table, as recipe.json of a run is")
    return override(table, settings, trust | asked(settings))


def override(table: dict[str, Any], settings: Sequence[str] = (), trust: Trust = NOTHING) -> Recipe:
    """Return the recipe of a table, with `key=value` settings put over it.

    A value is TOML, or else a string. A new kind of component drops the fields of the old one. A note is printed for
    an old name of a key (`renamed_keys`).

    Args:
        table: the recipe, in full or without what is as usual.
        settings: are put over it, one after the other.
        trust: what they may name that is no part of sitkit; `change` has that of a recipe.

    Raises:
        UserError: the table or a setting is not valid, or names code that is not trusted; one line an error.
    """
    if not isinstance(table, dict):
        raise UserError(f"a recipe should be a table, got {shortened(repr(table))}")
    table = with_new_keys(table, notify=True)
    for setting in settings_with_new_keys(settings):
        keys, value = _parts(setting)
        table = with_new_keys(_put(table, keys, value), notify=True)
    try:
        return Recipe.model_validate_json(json.dumps(table, default=str), context=trust)
    except ValidationError as error:
        raise UserError("\n".join(explain(error, table, trust))) from None


def change(recipe: Recipe, settings: Sequence[str], trust: Trust = NOTHING) -> Recipe:
    """Return a recipe with `key=value` settings put over it, which may name what it names itself.

    Raises:
        UserError: a setting is not valid, or names code that is not trusted.
    """
    return override(recipe.model_dump(mode="json"), settings, trust | Trust.of(recipe))


def asked(settings: Sequence[str]) -> Trust:
    """Return trust in what settings name that the user has typed.

    Raises:
        UserError: one is no key=value.
    """
    return Trust.of(*(_parts(setting)[1] for setting in settings))


def _parts(setting: str) -> tuple[list[str], Any]:
    if not setting.isascii():
        try:
            setting.encode()
        except UnicodeEncodeError:
            raise UserError(f"--set {shortened(ascii(setting))} is not UTF-8: rename what it names") from None
    keys, found, value = setting.partition("=")
    if not found or not all(parts := keys.split(".")) or len(parts) > DEEPEST:
        raise UserError(f"--set takes key=value, such as train.steps=100, got '{shortened(setting)}'")
    return parts, _value(value)


def stored(table: dict[str, Any], trust: Trust = NOTHING) -> Recipe:
    """Return the recipe of a table that a command has written, by this version or an earlier one.

    Raises:
        UserError: the table is not valid, names code that is not trusted, or means what it no longer says.
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
                f"{key}.shift = {shift} is of a version in which shifts above 1 led towards the data; now they lead "
                f'towards the noise: write "shift": {1 / shift:.6g}, "towards": "noise" there'
            )
        times, key = times.get("times"), f"{key}.times"
    return override(with_new_keys(table), trust=trust)


def _value(text: str) -> Any:
    try:
        return read_toml(f"value = {text}")["value"]
    except (ValueError, KeyError):
        pass
    try:
        return float(text)  # such as .5 or 1., which are not TOML
    except ValueError:
        return text


def _put(table: Any, keys: list[str], value: Any, model: type[BaseModel] | None = Recipe) -> dict[str, Any]:
    """Return the table with a value put at the end of `keys`; `model` is the section that the table is for."""
    if isinstance(table, str):
        table = {"kind": table}
    if not isinstance(table, dict) or (model is None and keys == ["kind"] and table.get("kind") != value):
        table = {}
    first, *rest = keys
    if not rest:
        return {**table, first: value}
    inner = _section(model, first) if model and first in model.model_fields else None
    return {**table, first: _put(table.get(first), rest, value, inner)}


def explain(error: ValidationError, table: dict[str, Any], trust: Trust) -> list[str]:
    """Return one line for each key that is wrong: the key, what is wrong, what is allowed."""
    lines: dict[str, list[str]] = {}
    for one in error.errors():
        path, known = _walk(one["loc"], table, trust)
        if one["type"] == "extra_forbidden":
            text = f"unknown key{nearest(path[-1], known)}; known: {', '.join(known)}"
        elif one["type"] == "missing":
            text = "is missing" if path and path[-1] == one["loc"][-1] else "has too few entries"
        else:
            text = one["msg"].removeprefix("Value error, ").removeprefix("Input ")
            if not isinstance(one["input"], dict) and one["type"] != "component":
                text += f", got {shortened(repr(one['input']))}"
        lines.setdefault(".".join(path), []).append(text)
    return [f"{key + ': ' if key else ''}{', or '.join(texts)}" for key, texts in lines.items()]


def shortened(text: str) -> str:
    """Return a text that the user gave, to be repeated in an error: its beginning, if it is long."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _walk(location: Sequence[str | int], table: Any, trust: Trust) -> tuple[list[str], list[str]]:
    """Return the keys that lead to a place in a recipe, and the keys that are known beside the last of them."""
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
        model = _section(model, part) or _fields(model, part, table, trust)
    return path, known


def _section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """Return the section that stands at a key of a section, if one does and not a component."""
    annotation = model.model_fields[key].annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _fields(model: type[BaseModel], key: str, value: Any, trust: Trust) -> type[ComponentFields] | None:
    """Return the fields of the component that stands at a key of a section, if one does that is known."""
    for slot in model.model_fields[key].metadata:
        if isinstance(slot, Slot):
            kind = value.get("kind", slot.usual) if isinstance(value, dict) else value
            try:
                return slot.model(slot.find(str(kind), trust))
            except UserError:
                return None
    return None


def to_toml(recipe: Recipe) -> str:
    """Return a recipe as TOML, in full, with the numbers that `auto` stands for and a remark that it did."""
    said, meant = recipe.model_dump(mode="json"), resolve(recipe).model_dump(mode="json")
    return "\n".join(_toml_lines(said, meant, ())).strip()


def _toml_lines(said: dict[str, Any], meant: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    """Return the lines of one table: its values first, then its tables."""
    lines = ["", f"[{'.'.join(path)}]"] if path else []
    for key, value in meant.items():
        if not isinstance(value, dict):
            lines.append(f"{key} = {json.dumps(value)}" + ("  # auto" if said.get(key) == "auto" != value else ""))
    for key, value in meant.items():
        if isinstance(value, dict):
            lines += _toml_lines(said[key] if isinstance(said.get(key), dict) else {}, value, (*path, key))
    return lines
