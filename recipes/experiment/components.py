"""Components of a recipe: a name and fields in a recipe become an object of a library, and back.

`{kind = "vp", beta_max = 20.0}` is `VP(beta_max=20.0)`. The kind is the public name of a class or function of a library
in snake case, or `"package.module:Name"` for a custom component. The fields are its parameters, with their types and
defaults. Parameters that follow from the rest of the recipe, such as the path of a w(t) or the image size of a
backbone, are passed to `Component.build`. A `ComponentSlot` is a key of a recipe that takes a component; it states in
which library kinds are looked up. Custom components are imported by `Trust.load`.
"""

import dataclasses
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, get_type_hints

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    PydanticUserError,
    ValidationError,
    create_model,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ..support.errors import UserError
from ..support.json_toml import read_toml
from ..support.names import did_you_mean, snake_case
from ..support.schema import Section
from ..support.trust import TRUST_EVERYTHING, TRUST_NOTHING, Trust, as_validation_error, validation_trust
from .kinds import find_kind, kinds_in


class ComponentFields(Section):
    """The fields of a component. Each component has a subclass, which `ComponentSlot.fields_model` makes."""


@dataclass(frozen=True)
class Component:
    """A component as a recipe describes it: the slot that it fills, its kind, and all its fields."""

    slot: "ComponentSlot" = field(repr=False)
    kind: str
    fields: ComponentFields
    target: Any = field(repr=False, compare=False)
    """The class or function that the kind names."""

    def build(self, **provided: Any) -> Any:
        """Return the object: the class or function called with the fields, and with what it takes of `provided`.

        Raises:
            UserError: the component refuses its fields, or needs a package that is not installed.
        """
        if self.slot.used_as_is:
            return self.target
        parameters = inspect.signature(self.target).parameters
        arguments = {name: provided[name] for name in parameters if name in provided}
        for name in type(self.fields).model_fields.keys() - self.slot.own_fields:
            value = getattr(self.fields, name)
            arguments[name] = value.build(**provided) if isinstance(value, Component) else value
        try:
            return self.target(**arguments)
        except (ValueError, ImportError) as error:
            raise UserError(f"{self.slot.name} = {self.kind}: {error}") from error


@dataclass(frozen=True)
class ComponentSlot:
    """A key of a recipe that takes a component.

    Args:
        name: the name of the slot in messages.
        library: the module whose public names are the kinds.
        accepts: whether a class or function can fill the slot.
        provided: parameters that `Component.build` is given by the recipe, so that they are not fields.
        nested: slots for parameters that are components themselves.
        used_as_is: whether the class or function itself is the component, which is not called and has no fields.
        bounds: the least and the largest value of fields whose large values would exhaust memory.
        own_fields: fields of the slot itself, with their types and defaults. They are not passed to the component.
        none_value: the value that stands for no component; None if a component is required.
        default_kind: the kind of a table without one; None if a kind is required.
    """

    name: str
    library: str
    accepts: Callable[[Any], bool] = field(compare=False)
    provided: frozenset[str] = frozenset()
    nested: Mapping[str, "ComponentSlot"] = field(default_factory=dict, compare=False)
    used_as_is: bool = False
    bounds: Mapping[str, tuple[int, int]] = field(default_factory=dict, compare=False)
    own_fields: Mapping[str, tuple[Any, Any]] = field(default_factory=dict, compare=False)
    none_value: str | None = None
    default_kind: str | None = None

    @cache  # noqa: B019 (slots are few and live as long as the program)
    def kinds(self) -> dict[str, Any]:
        """Return the classes and functions of the library that the slot accepts, by kind."""
        return kinds_in(self.library, self.accepts)

    def find(self, kind: str, trust: Trust = TRUST_NOTHING) -> Any:
        """Return the class or function that a kind names.

        Raises:
            UserError: there is none, the slot does not accept it, or it is code that is not trusted.
        """
        if ":" in kind:
            return self._check_custom(kind, trust.load(kind))
        found = find_kind(self.library, kind, self.accepts)
        if found is not None:
            return found
        known = [*self.kinds()] if self.none_value is None else [*self.kinds(), self.none_value]
        raise UserError(
            f"no {self.name} '{kind}'{did_you_mean(kind, known)}; known: {', '.join(known)}, or package.module:Name"
        )

    def _check_custom(self, kind: str, target: Any) -> Any:
        """Return a custom class or function if the slot accepts it and a recipe can hold its fields."""
        try:
            accepted = (inspect.isclass(target) or inspect.isfunction(target)) and self.accepts(target)
            if accepted:
                self.fields_model(target)
        except (TypeError, ValueError, NameError, AttributeError, PydanticUserError) as error:
            raise UserError(f"the fields of {self.name} '{kind}' cannot be read: {error}") from error
        if not accepted:
            classes = inspect.isfunction(target) and all(map(inspect.isclass, self.kinds().values()))
            why = " but a function: name a class" if classes else ""
            raise UserError(f"'{kind}' is no {self.name}{why}: see {self.library} for what one looks like")
        return target

    def parse(self, value: Any, trust: Trust = TRUST_NOTHING) -> Component | None:
        """Return the component for a value of a recipe.

        Args:
            value: a kind, a table with a kind, or an object that was built in Python.
            trust: the code outside of sitkit that the value may name. An object needs no trust.

        Raises:
            PydanticCustomError: there is no such component, or it is code that is not trusted.
            ValidationError: its fields are wrong.
        """
        if value is None or value == self.none_value:
            if self.none_value is None:
                raise PydanticCustomError("component", "a component is needed, as a kind or a table with a kind")
            return None
        if isinstance(value, Component):
            return value
        if isinstance(value, str):
            value = {"kind": value}
        if isinstance(value, dict) and self.none_value is not None and value.get("kind") == self.none_value:
            if others := [key for key in value if key != "kind"]:
                raise PydanticCustomError(
                    "component",
                    "'{kind}' has no fields, got {others}",
                    {"kind": self.none_value, "others": ", ".join(others)},
                )
            return None
        if not isinstance(value, dict):
            value = self._table_of(value)
            trust |= Trust.of(value)
        kind = value.get("kind", self.default_kind)
        if not isinstance(kind, str):
            raise PydanticCustomError(
                "component", "a kind is needed, one of: {kinds}", {"kinds": ", ".join(self.kinds())}
            )
        try:
            target = self.find(kind, trust)
        except UserError as problem:
            raise as_validation_error(problem) from None
        canonical = kind if ":" in kind else snake_case(target.__name__)
        fields = json.dumps({key: dump(field) for key, field in value.items() if key != "kind"})
        return Component(self, canonical, self.fields_model(target).model_validate_json(fields, context=trust), target)

    def read(self, text: str) -> Component:
        """Return the component for the text of a kind, or of a TOML table such as `{kind = "sigma", scale = 2.0}`.

        The text comes from the user, so the code that it names is trusted.

        Raises:
            UserError: the text is not valid.
        """
        try:
            value = read_toml(f"value = {text}")["value"] if text.lstrip().startswith("{") else text
            component = self.parse(value, TRUST_EVERYTHING)
        except PydanticCustomError as error:
            raise UserError(error.message()) from error
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"{text}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        except ValueError as error:
            raise UserError(f"{text} is no TOML: {error}") from error
        assert component is not None
        return component

    @cache  # noqa: B019 (slots are few and live as long as the program)
    def fields_model(self, target: Any) -> type[ComponentFields]:
        """Return the model of the fields of a class or function: its parameters, without those that are provided."""
        if self.used_as_is:
            return ComponentFields
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
        keys: dict[str, Any] = {}
        for name, parameter in inspect.signature(target).parameters.items():
            if name in self.provided or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            default = ... if parameter.default is parameter.empty else parameter.default
            if name in self.nested:
                slot = self.nested[name]
                default = default if default is ... else slot.parse(default, TRUST_EVERYTHING)  # of imported code
                keys[name] = (Annotated[Component | None, slot], default)
            else:
                kind = hints.get(name, Any)
                if name in self.bounds:
                    low, high = self.bounds[name]
                    kind = Annotated[kind, Field(ge=low, le=high)]
                keys[name] = (kind, default)
        keys.update(self.own_fields)
        return create_model(target.__name__, __base__=ComponentFields, **keys)

    def _table_of(self, built: Any) -> dict[str, Any]:
        """Return the table of an object that was built in Python."""
        target = built if self.used_as_is else type(built)
        custom = f"{getattr(target, '__module__', '')}:{getattr(target, '__qualname__', '')}"
        kind = next((kind for kind, known in self.kinds().items() if known is target), custom)
        if self.used_as_is or not dataclasses.is_dataclass(built):
            return {"kind": kind}
        names = [f.name for f in dataclasses.fields(built) if f.init and f.name not in self.provided]
        return {"kind": kind} | {name: getattr(built, name) for name in names}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        writer = core_schema.plain_serializer_function_ser_schema(lambda value: dump(value, self.none_value))
        parse = lambda value, info: self.parse(value, validation_trust(info))  # noqa: E731
        return core_schema.with_info_plain_validator_function(parse, serialization=writer)


def dump(value: Any, none_value: str | None = None) -> Any:
    """Return a value of a recipe as plain tables, lists, strings and numbers; `none_value` in place of None."""
    if value is None:
        return none_value
    if not isinstance(value, Component):
        return value
    if value.slot.used_as_is:
        return value.kind
    return {"kind": value.kind} | value.fields.model_dump(mode="json")
