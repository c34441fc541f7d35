"""Where data lie: the keys that say so, and where things are looked for that have moved."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..experiment.components import Component

PATH_KEYS = ("path", "heldout", "vae")
"""The keys of data that say where something lies: they may be changed, and what lies there is compared."""


def with_existing_paths(data: Component, before: Mapping[str, str]) -> Component:
    """Return data with the places where they are found: a relative one is looked for where it was before, too."""
    fields = data.fields
    given = {key: str(getattr(fields, key)) for key in PATH_KEYS if key in type(fields).model_fields}
    found = {key: existing_path(value, before.get(key)) for key, value in given.items()}
    changed = {key: value for key, value in found.items() if value != given[key]}
    return replace(data, fields=fields.model_copy(update=changed)) if changed else data


def existing_path(place: str, before: str | None) -> str:
    """Return a place, or where it was before if it is a relative one from which nothing is found here."""
    here = Path(place)
    lost = before is not None and not here.is_absolute() and not here.exists()
    return str(before) if lost and Path(str(before)).exists() and Path(str(before)).name == here.name else place


def absolute_paths(data: Component, vae: str | None) -> dict[str, str]:
    """Return where things lie, absolute, by key, of those that exist; `vae` is where the decoder's weights are."""
    given = {key: str(getattr(data.fields, key)) for key in PATH_KEYS if key in type(data.fields).model_fields}
    given |= {"vae": vae} if vae else {}
    return {key: str(Path(value).absolute()) for key, value in given.items() if Path(value).exists()}


def moved_hint(data: Component) -> str:
    """Return what to say besides of data that are not where the recipe has them."""
    place = getattr(data.fields, "path", None)
    lost = place is not None and not Path(str(place)).exists()
    return "; if the data have moved, name their place by --set data.path=DIR" if lost else ""
