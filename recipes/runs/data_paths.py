"""Paths of a run's data: the keys of the recipe that hold them, and where to look if a relative path does not exist."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..experiment.components import Component

PATH_KEYS = ("path", "heldout", "vae")
"""The fields of data that are paths. They may change while a run exists: the data are compared instead."""


def with_existing_paths(data: Component, recorded: Mapping[str, str]) -> Component:
    """Return data with paths that exist: a relative path that does not is replaced by the recorded one, if that does.

    Args:
        data: the data of a recipe.
        recorded: absolute paths at the time when the run was created, by key.
    """
    fields = data.fields
    given = {key: str(getattr(fields, key)) for key in PATH_KEYS if key in type(fields).model_fields}
    found = {key: existing_path(value, recorded.get(key)) for key, value in given.items()}
    changed = {key: value for key, value in found.items() if value != given[key]}
    return replace(data, fields=fields.model_copy(update=changed)) if changed else data


def existing_path(path: str, recorded: str | None) -> str:
    """Return a path; or the recorded one of the same name, if the path is relative and does not exist here."""
    here = Path(path)
    lost = recorded is not None and not here.is_absolute() and not here.exists()
    return str(recorded) if lost and Path(str(recorded)).exists() and Path(str(recorded)).name == here.name else path


def absolute_paths(data: Component, vae: str | None) -> dict[str, str]:
    """Return the absolute paths of data by key, of those that exist; `vae` is the path of the decoder's weights."""
    given = {key: str(getattr(data.fields, key)) for key in PATH_KEYS if key in type(data.fields).model_fields}
    given |= {"vae": vae} if vae else {}
    return {key: str(Path(value).absolute()) for key, value in given.items() if Path(value).exists()}


def moved_hint(data: Component) -> str:
    """Return a hint for the message of an error if the path of the data does not exist, or else an empty text."""
    path = getattr(data.fields, "path", None)
    lost = path is not None and not Path(str(path)).exists()
    return "; if the data have moved, give their location with --set data.path=DIR" if lost else ""
