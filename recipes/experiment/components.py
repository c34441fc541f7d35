"""From a name and fields in a recipe to a component of a library, and back, by one rule for all.

`{kind = "vp", beta_max = 20.0}` is `VP(beta_max=20.0)`: the kind is the component's public name in its library, in
snake case, or `"package.module:Name"` for one's own; the fields are its parameters, with their types and defaults.
What the recipe knows from elsewhere (the path of a w(t), the image size of a backbone) it hands over itself. A `Slot`
is a place for a component, and says where its kinds are found. Code outside of the libraries comes by `Trust.load`.
"""

import dataclasses
import importlib
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
from ..support.names import nearest, snake
from ..support.schema import Section
from ..support.trust import EVERYTHING, NOTHING, Trust, refusal, trust_in


class ComponentFields(Section):
    """The fields of a component, as a section."""


@dataclass(frozen=True)
class Component:
    """A component by name: its kind and all its fields, in a slot."""

    slot: "Slot" = field(repr=False)
    kind: str
    fields: ComponentFields
    target: Any = field(repr=False, compare=False)
    """The class or function that the kind names."""

    def build(self, **given: Any) -> Any:
        """Return the component itself, made of its fields and of those of `given` that it takes.

        Raises:
            UserError: the component refuses its fields, or needs a package that is not installed.
        """
        if self.slot.plain:
            return self.target
        arguments = {name: given[name] for name in inspect.signature(self.target).parameters if name in given}
        for name in type(self.fields).model_fields:
            value = getattr(self.fields, name)
            built = value.build(**given) if isinstance(value, Component) else value
            arguments[name] = built
        try:
            return self.target(**arguments)
        except (ValueError, ImportError) as error:
            raise UserError(f"{self.slot.name} = {self.kind}: {error}") from error


@dataclass(frozen=True)
class Slot:
    """A place for a component.

    Args:
        name: what to call the place in messages.
        library: the module whose public names are the kinds.
        fits: whether an object belongs in this place.
        given: parameters that the recipe hands over itself.
        nested: slots for those parameters that are components in turn.
        plain: the object found is used as it is, not called, and written as a bare name.
        bounds: least and largest value of fields of which too many could be made for ever.
        absent: the word for no component, if there may be none.
        usual: the kind of a table that names none, if there is a usual one.
    """

    name: str
    library: str
    fits: Callable[[Any], bool] = field(compare=False)
    given: frozenset[str] = frozenset()
    nested: Mapping[str, "Slot"] = field(default_factory=dict, compare=False)
    plain: bool = False
    bounds: Mapping[str, tuple[int, int]] = field(default_factory=dict, compare=False)
    absent: str | None = None
    usual: str | None = None

    @cache  # noqa: B019 (slots are few and live as long as the program)
    def kinds(self) -> dict[str, Any]:
        """Return the library's components that fit here, by kind."""
        return {snake(name): thing for name in self._names() if (thing := self._member(name)) is not None}

    def _names(self) -> list[str]:
        """Return the library's public names, those that are imported on use as well."""
        library = importlib.import_module(self.library)
        return [n for n in {**vars(library), **dict.fromkeys(getattr(library, "__all__", ()))} if not n.startswith("_")]

    def _member(self, name: str) -> Any:
        """Return what the library means by a name, or None if it does not fit here."""
        thing = getattr(importlib.import_module(self.library), name)
        return thing if getattr(thing, "__module__", "").startswith("sitkit.") and self.fits(thing) else None

    def find(self, kind: str, trust: Trust = NOTHING) -> Any:
        """Return the object that a kind names.

        Raises:
            UserError: there is no such object, it does not belong here, or it is code that is not trusted.
        """
        if ":" in kind:
            return self._own(kind, trust.load(kind))
        plain = kind.lower().replace("_", "").replace("-", "")
        for name in self._names():  # only what has that name is imported
            if name.lower().replace("_", "") == plain and (thing := self._member(name)) is not None:
                return thing
        words = [*self.kinds()] if self.absent is None else [*self.kinds(), self.absent]
        raise UserError(
            f"no {self.name} '{kind}'{nearest(kind, words)}; known: {', '.join(words)}, or package.module:Name"
        )

    def _own(self, kind: str, thing: Any) -> Any:
        """Return a thing outside of the library if it belongs here, and has fields that a recipe can hold."""
        try:
            fits = (inspect.isclass(thing) or inspect.isfunction(thing)) and self.fits(thing)
            if fits:
                self.model(thing)
        except (TypeError, ValueError, NameError, AttributeError, PydanticUserError) as error:
            raise UserError(f"the fields of {self.name} '{kind}' cannot be read: {error}") from error
        if not fits:
            classes = inspect.isfunction(thing) and all(map(inspect.isclass, self.kinds().values()))
            why = " but a function: name a class" if classes else ""
            raise UserError(f"'{kind}' is no {self.name}{why}: see {self.library} for what one looks like")
        return thing

    def parse(self, value: Any, trust: Trust = NOTHING) -> Component | None:
        """Return the component that a recipe's value stands for: a kind, a table, or the component itself.

        Args:
            value: the value.
            trust: what may be imported that is no part of sitkit. An object that is there already needs none.

        Raises:
            PydanticCustomError: there is no such component, or it is code that is not trusted.
            ValidationError: its fields are wrong.
        """
        if value is None or value == self.absent:
            if self.absent is None:
                raise PydanticCustomError("component", "a component is needed, as a kind or a table with a kind")
            return None
        if isinstance(value, Component):
            return value
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, dict):
            value = self._describe(value)
            trust |= Trust.of(value)
        kind = value.get("kind", self.usual)
        if not isinstance(kind, str):
            raise PydanticCustomError(
                "component", "a kind is needed, one of: {kinds}", {"kinds": ", ".join(self.kinds())}
            )
        try:
            target = self.find(kind, trust)
        except UserError as problem:
            raise refusal(problem) from None
        canonical = kind if ":" in kind else snake(target.__name__)
        fields = json.dumps({key: dump(field) for key, field in value.items() if key != "kind"})
        return Component(self, canonical, self.model(target).model_validate_json(fields, context=trust), target)

    def read(self, text: str) -> Component:
        """Return the component that a kind, or its table in TOML such as `{kind = "sigma", scale = 2.0}`, stands for.

        The text is the user's own: what it names is imported.

        Raises:
            UserError: there is none.
        """
        try:
            value = read_toml(f"value = {text}")["value"] if text.lstrip().startswith("{") else text
            component = self.parse(value, EVERYTHING)
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
    def model(self, target: Any) -> type[ComponentFields]:
        """Return the section whose keys are the fields of a component in this slot."""
        if self.plain:
            return ComponentFields
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
        keys: dict[str, Any] = {}
        for name, parameter in inspect.signature(target).parameters.items():
            if name in self.given or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            default = ... if parameter.default is parameter.empty else parameter.default
            if name in self.nested:
                slot = self.nested[name]
                default = default if default is ... else slot.parse(default, EVERYTHING)  # of code that is imported
                keys[name] = (Annotated[Component | None, slot], default)
            else:
                kind = hints.get(name, Any)
                if name in self.bounds:
                    low, high = self.bounds[name]
                    kind = Annotated[kind, Field(ge=low, le=high)]
                keys[name] = (kind, default)
        return create_model(target.__name__, __base__=ComponentFields, **keys)

    def _describe(self, thing: Any) -> dict[str, Any]:
        """Return the table of a component that was built by hand."""
        target = thing if self.plain else type(thing)
        kinds = self.kinds()
        own = f"{getattr(target, '__module__', '')}:{getattr(target, '__qualname__', '')}"
        kind = next((kind for kind, known in kinds.items() if known is target), own)
        if self.plain or not dataclasses.is_dataclass(thing):
            return {"kind": kind}
        names = [f.name for f in dataclasses.fields(thing) if f.init and f.name not in self.given]
        return {"kind": kind} | {name: getattr(thing, name) for name in names}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        writer = core_schema.plain_serializer_function_ser_schema(lambda value: dump(value, self.absent))
        parse = lambda value, info: self.parse(value, trust_in(info))  # noqa: E731
        return core_schema.with_info_plain_validator_function(parse, serialization=writer)


def dump(value: Any, absent: str | None = None) -> Any:
    """Return a recipe's value as plain tables, lists, strings and numbers."""
    if value is None:
        return absent
    if not isinstance(value, Component):
        return value
    if value.slot.plain:
        return value.kind
    return {"kind": value.kind} | value.fields.model_dump(mode="json")
