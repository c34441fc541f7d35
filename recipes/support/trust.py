"""Whose code may run.

A recipe may name code that is no part of sitkit: a component, as `"package.module:Name"`, or a checkout that makes a
network. The user's own recipe and command line may; a folder that is only read, such as a run from elsewhere, may not.
"""

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ValidationInfo
from pydantic_core import PydanticCustomError

from .errors import UserError


@dataclass(frozen=True)
class Trust:
    """The code outside of sitkit that may be imported and run: none by default.

    Args:
        names: what may be, as recipes name it.
        everything: whether all may be.
    """

    names: frozenset[str] = frozenset()
    everything: bool = False

    @classmethod
    def of(cls, *values: Any) -> "Trust":
        """Return trust in all that values name: strings, sections, and tables and lists of them."""
        return cls(frozenset(name for value in values for name in _strings(value)))

    def __or__(self, other: "Trust") -> "Trust":
        return Trust(self.names | other.names, self.everything or other.everything)

    def check(self, name: str) -> None:
        """Raise a problem unless this code may run."""
        if not self.everything and name not in self.names:
            raise UserError(
                f"'{name}' is code outside of sitkit, which runs only if you ask for it: if you trust this code, and "
                "where its name comes from, add --trust (in Python, pass trust=Trust(everything=True))"
            )

    def load(self, name: str) -> Any:
        """Return what `"package.module:Name"` names, imported as `python` would, from the working directory as well.

        Raises:
            UserError: it is not trusted, is no such name, or cannot be imported.
        """
        self.check(name)
        module, _, attribute = name.partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), attribute)):
            raise UserError(f"'{name}' should be package.module:Name")
        if os.getcwd() not in sys.path:  # of a console script, it is not
            sys.path.insert(0, os.getcwd())
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:  # a module may raise anything
            raise UserError(f"'{name}' cannot be imported: {str(error) or type(error).__name__}") from error


TRUST_NOTHING, TRUST_EVERYTHING = Trust(), Trust(everything=True)


def validation_trust(info: ValidationInfo) -> Trust:
    """Return the trust with which a section is validated."""
    return info.context if isinstance(info.context, Trust) else TRUST_NOTHING


def as_validation_error(problem: UserError) -> PydanticCustomError:
    """Return a problem as an error of validation."""
    text = str(problem).encode(errors="backslashreplace").decode()  # names of files may be no UTF-8
    return PydanticCustomError("component", "{problem}", {"problem": text})


def _check(value: str, info: ValidationInfo) -> str:
    try:
        validation_trust(info).check(value)
    except UserError as problem:
        raise as_validation_error(problem) from None
    return value


CodeFolder = Annotated[str, AfterValidator(_check)]
"""The name of a folder whose code is run; in a recipe it needs trust."""


def _strings(value: Any) -> set[str]:
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, str):
        return {value}
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return {name for part in parts for name in _strings(part)}
