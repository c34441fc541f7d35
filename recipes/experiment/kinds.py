"""Kinds: the public classes and functions of a library, by their names in snake case."""

import importlib
from collections.abc import Callable
from typing import Any

from ..support.names import snake_case

Accepts = Callable[[Any], bool]


def kinds_in(library: str, accepts: Accepts) -> dict[str, Any]:
    """Return the public classes and functions of a library that are accepted, by kind."""
    members = {name: _member(library, name, accepts) for name in _public_names(library)}
    return {snake_case(name): member for name, member in members.items() if member is not None}


def find_kind(library: str, kind: str, accepts: Accepts) -> Any:
    """Return the accepted class or function that a kind names; None if there is none.

    Case, underscores and hyphens are ignored. A library may import members on use: only the one with this name is.
    """
    letters = kind.lower().replace("_", "").replace("-", "")
    for name in _public_names(library):
        if name.lower().replace("_", "") == letters:
            member = _member(library, name, accepts)
            if member is not None:
                return member
    return None


def _public_names(library: str) -> list[str]:
    """Return the public names of a library, with those that it imports on use."""
    module = importlib.import_module(library)
    names = {**vars(module), **dict.fromkeys(getattr(module, "__all__", ()))}
    return [name for name in names if not name.startswith("_")]


def _member(library: str, name: str, accepts: Accepts) -> Any:
    """Return the member of a library with a name; None if it is not accepted, or comes from outside of sitkit."""
    member = getattr(importlib.import_module(library), name)
    return member if getattr(member, "__module__", "").startswith("sitkit.") and accepts(member) else None
