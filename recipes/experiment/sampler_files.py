"""The file of a chosen sampler: the tables `[sampler]` and `[guidance]` of a recipe, in TOML, to put over a run's."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..storage.files import read_regular
from ..support.errors import UserError
from ..support.json_toml import read_toml
from ..support.names import nearest
from ..support.trust import NOTHING, Trust
from .reading import change
from .recipe import Recipe
from .settings import settings_of

TABLES = ("sampler", "guidance")


def sampler_toml(recipe: Recipe, remarks: Sequence[str] = ()) -> str:
    """Return a recipe's sampler and guidance as TOML, below some remarks; `auto` stays."""
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


def with_sampler(recipe: Recipe, file: Path, trust: Trust = NOTHING) -> Recipe:
    """Return a recipe with the sampler and the guidance of a file, as far as it has them.

    Args:
        recipe: the recipe.
        file: may come from anywhere, as a run may.
        trust: what it may name that is no part of sitkit, besides what the recipe names.

    Raises:
        UserError: the file cannot be read, has other keys, does not fit the recipe, or names code that is not trusted.
    """
    try:
        return change(recipe, settings_of(_read(file)), trust)
    except UserError as problem:
        raise UserError(f"{file}: {'; '.join(str(problem).splitlines())}") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        table = read_toml(read_regular(file).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except ValueError as error:
        raise UserError(f"is not TOML: {error}") from error
    for key, value in table.items():
        if key not in TABLES:
            raise UserError(
                f"{key}: unknown key{nearest(key, [*TABLES])}; a sampler's file has the tables sampler, guidance"
            )
        if not isinstance(value, dict):
            raise UserError(f"{key}: a table is wanted, got {value!r}")
    return table
