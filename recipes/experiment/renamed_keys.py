"""Recipe keys that were renamed: the old name is accepted wherever a key can be written.

Recipes are read, shown and stored under the new names. Digests of recipes are computed under the old ones
(`with_old_keys`), so that folders named by a digest are found again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..support.errors import UserError
from ..support.progress import print_once

RENAMED = {
    "compute.accumulate": "compute.gradient_accumulation",
    "compute.recompute": "compute.activation_checkpointing",
}
"""The new name of each renamed key, by its old name. Both are dotted, of the same section."""


def with_new_keys(table: Any, *, notify: bool = False) -> Any:
    """Return a recipe's table with the new names of its keys. A value that is no table is returned as it is.

    Args:
        table: nested tables, as in a TOML file or `recipe.json`.
        notify: whether to print a note for each old name: for what a user wrote, not for files that sitkit wrote.

    Raises:
        UserError: a key is given under both names.
    """
    for old, new in RENAMED.items():
        section, _, key = old.partition(".")
        part = table.get(section) if isinstance(table, Mapping) else None
        if not isinstance(part, Mapping) or key not in part:
            continue
        if new.partition(".")[2] in part:
            raise _given_twice(old, new)
        if notify:
            _notify(old, new)
        table = _renamed(table, old, new)
    return table


def with_old_keys(table: dict[str, Any]) -> dict[str, Any]:
    """Return a whole recipe's table, as it is dumped, with the old names of its keys: the form for digests.

    `source` is left out if it is noise, as in recipes that were written before there were other sources.
    """
    if table.get("source") == "noise":
        table = {key: value for key, value in table.items() if key != "source"}
    for old, new in RENAMED.items():
        table = _renamed(table, new, old)
    return table


def settings_with_new_keys(settings: Sequence[str]) -> list[str]:
    """Return `key=value` settings with the new names of their keys.

    Raises:
        UserError: a key is set under both names.
    """
    for old, new in RENAMED.items():
        under_old, under_new = ([one for one in settings if _sets(one, name)] for name in (old, new))
        if under_old and under_new:
            raise _given_twice(old, new)
        if under_old:
            _notify(old, new)
            settings = [new + one.removeprefix(old) if one in under_old else one for one in settings]
    return [*settings]


def _sets(setting: str, key: str) -> bool:
    return setting.startswith((f"{key}=", f"{key}."))


def _renamed(table: Mapping[str, Any], was: str, now: str) -> dict[str, Any]:
    section, _, key = was.partition(".")
    name = now.partition(".")[2]
    return {**table, section: {name if one == key else one: value for one, value in table[section].items()}}


def _given_twice(old: str, new: str) -> UserError:
    return UserError(f"{old} is the old name of {new}: give only {new}")


def _notify(old: str, new: str) -> None:
    print_once(f"{old} is now named {new}; the old name is still accepted")
