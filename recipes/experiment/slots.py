"""The component slots of a recipe: where each looks for its kinds, and which classes and functions it accepts."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_type_hints

from sitkit.interpolants import Interpolant, TwoSided
from sitkit.samplers import Tweedie

from .components import Component, ComponentSlot


def _has_parameters(*names: str) -> Callable[[Any], bool]:
    """Return a test of whether an object can be called with parameters of these names."""
    return lambda target: callable(target) and set(names) <= set(inspect.signature(target).parameters)


def _is_path(target: Any) -> bool:
    return is_path_from_noise(target) or is_two_sided_path(target)


def is_path_from_noise(target: Any) -> bool:
    """Return whether a class is a path from noise to data."""
    return inspect.isclass(target) and issubclass(target, Interpolant) and not inspect.isabstract(target)


def is_two_sided_path(target: Any) -> bool:
    """Return whether a class is a path from a source to data."""
    return inspect.isclass(target) and issubclass(target, TwoSided) and not inspect.isabstract(target)


def _is_quantity(target: Any) -> bool:
    return inspect.isclass(target) and hasattr(target, "error_rate") and not getattr(target, "_is_protocol", False)


def _is_objective(target: Any) -> bool:
    return inspect.isclass(target) and hasattr(target, "field") and not getattr(target, "_is_protocol", False)


def is_two_sided_objective(target: Any) -> bool:
    """Return whether a class is an objective of two-sided paths: it returns the score beside the velocity."""
    return hasattr(target, "scored")


def _is_callable_class(target: Any) -> bool:
    """Return whether instances of a class are functions, such as distributions of times and couplings."""
    return inspect.isclass(target) and "__call__" in vars(target) and not getattr(target, "_is_protocol", False)


def _is_diffusion(target: Any) -> bool:
    """Return whether instances of a class are functions of one argument, the time. Operators take states, named x."""
    if not _is_callable_class(target):
        return False
    parameters = [*inspect.signature(target.__call__).parameters]
    return len(parameters) == 2 and parameters[1] != "x"


def _is_solver(target: Any) -> bool:
    """Return whether instances of a class are functions of a state and times, and the class takes a field."""
    if not inspect.isclass(target) or not callable(target) or target is Tweedie:
        return False
    takes_times = "times" in inspect.signature(target.__call__).parameters
    return takes_times and (_has_parameters("velocity")(target) or is_stochastic(target))


def is_stochastic(solver: Any) -> bool:
    """Return whether a solver is for SDEs: it takes noise."""
    fields = (("sde",), ("model", "path"), ("velocity", "path"), ("w",))
    return any(_has_parameters(*names, "noise")(solver) for names in fields)


def solves(solver: Any, kind: str) -> bool:
    """Return whether a solver is for the ODE (kind 'ode') or for SDEs (kind 'sde'); one that takes w is for both."""
    return _has_parameters("velocity", "w")(solver) or is_stochastic(solver) == (kind == "sde")


def takes_path(solver: Any) -> bool:
    """Return whether a solver takes the path from noise to data."""
    return _has_parameters("path")(solver)


def takes_network(solver: Any) -> bool:
    """Return whether a solver takes the network itself, instead of the velocity."""
    return _has_parameters("model")(solver)


def _is_weight(target: Any) -> bool:
    """Return whether a function takes a path."""
    return inspect.isfunction(target) and _has_parameters("path")(target)


def _is_variable(target: Any) -> bool:
    """Return whether a function takes one argument, log(alpha / sigma)."""
    return inspect.isfunction(target) and len(inspect.signature(target).parameters) == 1


def _is_time_grid(target: Any) -> bool:
    """Return whether a function takes path, steps and interval, and no network."""
    takes = _has_parameters("path", "steps", "interval")(target) and not _has_parameters("velocity")(target)
    return inspect.isfunction(target) and takes


def is_data_set(target: Any) -> bool:
    """Return whether a function is annotated to return a `Split`."""
    from ..data.images import Split

    return inspect.isfunction(target) and get_type_hints(target).get("return") is Split


def _is_source(target: Any) -> bool:
    """Return whether a class or function makes sources: a data set, or a function of images, noise and labels."""
    if not _is_callable_class(target):
        return is_data_set(target)
    return len(inspect.signature(target.__call__).parameters) == 4  # with self


def _is_extractor(target: Any) -> bool:
    """Return whether instances of a class are functions from images to features."""
    return _is_callable_class(target) and hasattr(target, "frechet")


def needs_loss_curve(w: Component) -> bool:
    """Return whether a w(t), or the one in its window, is computed from the trained network's loss at each time."""
    inner = getattr(w.fields, "w", None)
    return _has_parameters("loss_curve")(w.target) or (inner is not None and needs_loss_curve(inner))


DATA = ComponentSlot("data", "sitkit.recipes.data", is_data_set, bounds={"classes": (0, 10**6), "size": (0, 2**16)})
PATH = ComponentSlot("path", "sitkit.interpolants", _is_path, default_kind="linear")
SAMPLING_PATH = replace(PATH, accepts=is_path_from_noise, none_value="auto")
SOURCE = ComponentSlot(
    "source",
    "sitkit.recipes.data.sources",
    _is_source,
    bounds={"classes": (0, 10**6), "size": (0, 2**16)},
    own_fields={"condition": (bool, False)},
    none_value="noise",
)
QUANTITY = ComponentSlot("quantity", "sitkit.objectives.quantities", _is_quantity, used_as_is=True)
LOSS_WEIGHT = ComponentSlot(
    "weight", "sitkit.objectives.weights", _is_weight, provided=frozenset({"path"}), none_value="none"
)
OBJECTIVE = ComponentSlot(
    "objective",
    "sitkit.objectives",
    _is_objective,
    provided=frozenset({"path", "bridge"}),
    default_kind="matching",
    nested={"predict": QUANTITY, "measure": replace(QUANTITY, none_value="auto"), "weight": LOSS_WEIGHT},
)
_in_times: dict[str, ComponentSlot] = {}
TIMES = ComponentSlot("times", "sitkit.objectives.times", _is_callable_class, default_kind="uniform", nested=_in_times)
_in_times["times"] = TIMES  # some distributions modify another one
COUPLING = ComponentSlot("coupling", "sitkit.objectives.couplings", _is_callable_class, none_value="independent")
IMAGE_SIZES = ("input_size", "in_channels", "num_classes")
BACKBONE = ComponentSlot(
    "backbone",
    "sitkit.backbones",
    _has_parameters(*IMAGE_SIZES),
    provided=frozenset((*IMAGE_SIZES, "out_channels")),
    bounds={"depth": (1, 10_000)},
)
_in_diffusion: dict[str, ComponentSlot] = {}
DIFFUSION = ComponentSlot(
    "w",
    "sitkit.samplers",
    _is_diffusion,
    provided=frozenset({"path", "loss_curve"}),
    nested=_in_diffusion,
    default_kind="sigma",
)
_in_diffusion["w"] = DIFFUSION  # of a window
SOLVER_VARIABLE = ComponentSlot("variable", "sitkit.samplers.log_snr", _is_variable, used_as_is=True)
SOLVER = ComponentSlot(
    "solver",
    "sitkit.samplers",
    _is_solver,
    provided=frozenset({"velocity", "path", "sde", "w", "model", "noise"}),
    nested={"variable": SOLVER_VARIABLE},
    none_value="auto",
)
ROUGHNESS = ComponentSlot("roughness", "sitkit.samplers.roughness", _is_callable_class, default_kind="normal_roughness")
TIME_GRID = ComponentSlot(
    "times",
    "sitkit.samplers.grids",
    _is_time_grid,
    provided=frozenset({"path", "steps", "interval"}),
    nested={"roughness": ROUGHNESS},
    none_value="auto",
)
FEATURES = ComponentSlot("features", "sitkit.recipes.features", _is_extractor, default_kind="pixels")
