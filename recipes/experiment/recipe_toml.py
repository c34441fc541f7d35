"""Writes recipes as TOML."""

import json
from typing import Any

from .auto_values import resolve_auto
from .recipe import Recipe


def recipe_to_toml(recipe: Recipe) -> str:
    """Return a recipe as TOML with all its keys. Values that `auto` stands for are written out and marked `# auto`."""
    written, resolved = recipe.model_dump(mode="json"), resolve_auto(recipe).model_dump(mode="json")
    return "\n".join(_lines(written, resolved, ())).strip()


def _lines(written: dict[str, Any], resolved: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    """Return the lines of one table: its values first, then its tables."""
    lines = ["", f"[{'.'.join(path)}]"] if path else []
    for key, value in resolved.items():
        if not isinstance(value, dict):
            lines.append(f"{key} = {json.dumps(value)}" + ("  # auto" if written.get(key) == "auto" != value else ""))
    for key, value in resolved.items():
        if isinstance(value, dict):
            lines += _lines(written[key] if isinstance(written.get(key), dict) else {}, value, (*path, key))
    return lines
