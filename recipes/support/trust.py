"""Trust: which code outside of sitkit may be imported and run.

A recipe may name such code: a custom component, as `"package.module:Name"`, or a checkout that defines a network. Code
is trusted if the user's recipe or command line names it. Code that only the files of a folder name, such as those of a
run from elsewhere, is not.
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
        names: the names of trusted code, as recipes write them.
        everything: whether all code is trusted.
    """

    names: frozenset[str] = frozenset()
    everything: bool = False

    @classmethod
    def of(cls, *values: Any) -> "Trust":
        """Return trust in all code that values name: strings, sections, and tables and lists of them."""
        return cls(frozenset(name for value in values for name in _strings(value)))

    def __or__(self, other: "Trust") -> "Trust":
        return Trust(self.names | other.names, self.everything or other.everything)

    def check(self, name: str) -> None:
        """Check that code may run.

        Raises:
            UserError: it may not.
        """
        if not self.everything and name not in self.names:
            raise UserError(
                f"'{name}' is code outside of sitkit, which runs only if you ask for it: if you trust this code and "
                "the source of its name, add --trust (in Python, trust=True)"
            )

    def load(self, name: str) -> Any:
        """Import `"package.module:Name"`, also from the working directory, and return the object.

        Raises:
            UserError: it is not trusted, is not of this form, or cannot be imported.
        """
        self.check(name)
        module, _, attribute = name.partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), attribute)):
            raise UserError(f"'{name}' should be package.module:Name")
        if os.getcwd() not in sys.path:  # for a console script, it is not
            sys.path.insert(0, os.getcwd())
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:  # a module may raise anything
            raise UserError(f"'{name}' cannot be imported: {str(error) or type(error).__name__}") from error


TRUST_NOTHING, TRUST_EVERYTHING = Trust(), Trust(everything=True)


def validation_trust(info: ValidationInfo) -> Trust:
    """Return the trust that a validation was given as its context."""
    return info.context if isinstance(info.context, Trust) else TRUST_NOTHING


def as_validation_error(problem: UserError) -> PydanticCustomError:
    """Return a `UserError` as an error that validators of pydantic may raise."""
    text = str(problem).encode(errors="backslashreplace").decode()  # names of files may not be UTF-8
    return PydanticCustomError("component", "{problem}", {"problem": text})


def _check(value: str, info: ValidationInfo) -> str:
    try:
        validation_trust(info).check(value)
    except UserError as problem:
        raise as_validation_error(problem) from None
    return value


CodeFolder = Annotated[str, AfterValidator(_check)]
"""The name of a folder whose code is run: a field of this type is only valid if the name is trusted."""


def _strings(value: Any) -> set[str]:
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, str):
        return {value}
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return {name for part in parts for name in _strings(part)}
