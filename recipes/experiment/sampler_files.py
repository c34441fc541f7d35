"""Samplers by name or from a TOML file, which has the tables `[sampler]` and `[guidance]` of a recipe."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..storage.files import read_regular
from ..support.errors import UserError
from ..support.json_toml import read_toml
from ..support.names import did_you_mean
from ..support.trust import TRUST_NOTHING, Trust
from .overrides import with_settings
from .packaged import samplers
from .recipe import Recipe
from .settings import settings_from_table

TABLES = ("sampler", "guidance")


def sampler_toml(recipe: Recipe, remarks: Sequence[str] = ()) -> str:
    """Return a recipe's sampler and guidance as TOML, with `auto` unresolved, below a comment of these lines."""
    table = recipe.model_dump(mode="json", include=set(TABLES))
    lines = [f"# {remark}" for remark in remarks]
    for name in TABLES:
        lines += _lines(table[name], name)
    return "\n".join(lines).strip() + "\n"


def _lines(table: Mapping[str, Any], name: str) -> list[str]:
    """Return the lines of a table: its values first, then its tables."""
    values = [
        f"{key} = {json.dumps(value)}" for key, value in table.items() if isinstance(value, int | float | str | list)
    ]
    inner = [_lines(value, f"{name}.{key}") for key, value in table.items() if isinstance(value, dict)]
    return ["", f"[{name}]", *values, *(line for lines in inner for line in lines)]


def with_sampler(recipe: Recipe, source: str | Path, trust: Trust = TRUST_NOTHING) -> Recipe:
    """Return a recipe with the tables `sampler` and `guidance` of a file over its own. Keys that it lacks stay.

    Args:
        recipe: the recipe.
        source: the name of a packaged sampler, or else the path of a file; a `Path` is always a file. A name takes
            precedence over a file of the same name in the working directory: `./NAME` is the file.
        trust: which code outside of sitkit the file may name, besides what the recipe names.

    Raises:
        UserError: there is no such sampler, or the file cannot be read, has other keys, does not fit the recipe, or
            names code that is not trusted.
    """
    text = sampler_text(source)
    try:
        return with_settings(recipe, settings_from_table(_tables(text)), trust)
    except UserError as problem:
        raise UserError(f"{source}: {'; '.join(str(problem).splitlines())}") from None


def sampler_text(source: str | Path) -> str:
    """Return the TOML of a packaged sampler, by its name, or of a file.

    Raises:
        UserError: there is neither, or the file cannot be read.
    """
    name = str(source)
    known = samplers()
    if isinstance(source, str) and name in known:
        return known[name]
    if "/" not in name and not name.endswith(".toml") and not Path(name).exists():
        raise UserError(
            f"no sampler '{name}'{did_you_mean(name, [*known])}; known: {', '.join(known)}, or the path of a TOML file"
        )
    try:
        return read_regular(Path(name)).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _tables(text: str) -> dict[str, Any]:
    try:
        table = read_toml(text)
    except ValueError as error:
        raise UserError(f"is not TOML: {error}") from error
    for key, value in table.items():
        if key not in TABLES:
            raise UserError(f"{key}: unknown key{did_you_mean(key, [*TABLES])}; known: {', '.join(TABLES)}")
        if not isinstance(value, dict):
            raise UserError(f"{key}: should be a table, got {value!r}")
    return table
