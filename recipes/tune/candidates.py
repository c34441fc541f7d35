"""The axes of a sampler search: keys of the sampler and the guidance with their values, and recipes that have them.

A value of `sampler.w` makes the sampler an SDE; the value `ode` is w = 0.
"""

from collections.abc import Sequence
from typing import Any

from sitkit.objectives import LossCurve

from ..experiment.components import dump
from ..experiment.overrides import with_settings
from ..experiment.recipe import Guidance, Recipe
from ..experiment.sampler import Sampler
from ..experiment.settings import short_text, toml_value, trust_in_settings
from ..study.study_file import Axis, Variant
from ..support.errors import UserError
from ..support.names import did_you_mean
from ..support.schema import Section
from .default_values import DEFAULTS, NO_NOISE, default_values

W = "sampler.w"
SECTIONS: dict[str, type[Section]] = {"sampler": Sampler, "guidance": Guidance}
AUTOMATIC = ("sampler.solver=auto", "sampler.last=auto")
"""Settings that fit every kind of sampler."""


def read_axes(texts: Sequence[str], recipe: Recipe, curve: LossCurve | None, guided: bool = True) -> tuple[Axis, ...]:
    """Return the axes of a search.

    Args:
        texts: keys, separated by commas, such as `sampler.w`, with their values unless those are the default ones,
            such as `guidance.scale=1.0|1.5|2.0`; values are written as in `--set`.
        recipe: the run's recipe.
        curve: its loss curve, from which some default values follow; None without data.
        guided: whether the run has classes.

    Raises:
        UserError: a key or value is unknown, or is given twice.
    """
    parts = [part.strip() for text in texts for part in split(text, ",") if part.strip()]
    axes = tuple(_axis(part, recipe, curve, guided) for part in parts)
    for axis in axes:
        if [other.name for other in axes].count(axis.name) > 1:
            raise UserError(f"--over {axis.name} is given twice: put all its values into one, with | between them")
    if not axes:
        raise UserError(f"--over names what to vary, such as {', '.join(DEFAULTS)}")
    return axes


def split(text: str, separator: str) -> list[str]:
    """Return the parts of a text between separators outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote or letter in "\"'":
            quote = "" if letter == quote else quote or letter
        depth += 0 if quote else (letter in "[{") - (letter in "]}")
        if letter == separator and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _axis(text: str, recipe: Recipe, curve: LossCurve | None, guided: bool) -> Axis:
    key, given, values = (part.strip() for part in text.partition("="))
    section = SECTIONS.get(key.partition(".")[0])
    if section is None or "." not in key:
        raise UserError(f"--over {key}: only keys of sampler and guidance can be varied, such as sampler.w")
    if key == "sampler.steps":
        raise UserError("--over sampler.steps: they follow from --calls")
    if (name := key.split(".")[1]) not in section.model_fields:
        known = [*section.model_fields]
        raise UserError(f"--over {key}: unknown key{did_you_mean(name, known)}; known: {', '.join(known)}")
    if section is Guidance and not guided:
        raise UserError(f"--over {key}: this run has no classes, and guidance needs them")
    written = [value.strip() for value in split(values, "|") if value.strip()]
    variants = [variant(key, value) for value in written] or [
        variant(key, toml_value(value), short_text(value)) for value in default_values(key, curve)
    ]
    if not variants:
        raise UserError(f"--over {key}: name its values, as {key}=...|...; {', '.join(DEFAULTS)} have default values")
    for one in variants if given else ():
        _check(one, key, recipe)
    return Axis(key, tuple(variants))


def variant(key: str, value: str, name: str = "") -> Variant:
    """Return a value of a key, written as in `--set`."""
    if key == W and value.strip("\"'") == NO_NOISE:
        return Variant(NO_NOISE, NO_NOISE, ("sampler.kind=ode",))
    noisy = ("sampler.kind=sde",) if key == W or key.startswith(f"{W}.") else ()
    return Variant(name or value, value, (*noisy, f"{key}={value}"))


def _check(one: Variant, key: str, recipe: Recipe) -> None:
    """Raise an error if a value fits no kind of sampler."""
    problems = []
    for kind in ("ode", "sde"):
        try:
            changed(recipe, Variant(kind, kind, (f"sampler.kind={kind}",)), one)
        except UserError as problem:
            problems.append(problem)
    if len(problems) == 2:
        raise UserError(f"--over {key}={one.value}: {'; '.join(str(problems[0]).splitlines())}")


def changed(recipe: Recipe, *variants: Variant) -> Recipe:
    """Return a recipe with other values; its solver and last step become `auto` if they do not fit these.

    Settings without effect get their default values, so that recipes with the same samples are equal: the w of an ODE,
    and the guidance of scale 1.

    Raises:
        UserError: the values cannot be combined.
    """
    settings = tuple(setting for one in variants for setting in one.settings)
    trust = trust_in_settings(settings)  # the user has typed them, or they are defaults
    try:
        found = with_settings(recipe, settings, trust)
    except UserError:
        found = with_settings(recipe, (*AUTOMATIC, *settings), trust)
    sampler: dict[str, Any] = {}
    if found.sampler.kind == "ode":
        sampler["w"] = Sampler().w
    if dump(found.sampler.path) == dump(found.path):
        sampler["path"] = None
    guidance = Guidance() if found.guidance.scale == 1 else found.guidance
    return found.model_copy(update={"sampler": found.sampler.model_copy(update=sampler), "guidance": guidance})


def words(recipe: Recipe, keys: Sequence[str]) -> tuple[str, ...]:
    """Return the values of a recipe at some keys, as text."""
    return tuple(_word(recipe, key) for key in keys)


def _word(recipe: Recipe, key: str) -> str:
    if recipe.sampler.kind == "ode" and (key == W or key.startswith(f"{W}.")):
        return NO_NOISE
    value: Any = recipe.model_dump(mode="json")
    for part in key.split("."):
        value = value.get(part, "-") if isinstance(value, dict) else "-"
    return short_text(value)
