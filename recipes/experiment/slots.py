"""The places of a recipe that components fill."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_type_hints

from sitkit.interpolants import Interpolant
from sitkit.samplers import Tweedie

from .components import Component, Slot


def _takes(*names: str) -> Callable[[Any], bool]:
    """Return whether a thing can be called with arguments of these names."""
    return lambda thing: callable(thing) and set(names) <= set(inspect.signature(thing).parameters)


def _is_path(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, Interpolant) and not inspect.isabstract(thing)


def _is_quantity(thing: Any) -> bool:
    return inspect.isclass(thing) and hasattr(thing, "error_rate") and not getattr(thing, "_is_protocol", False)


def _is_objective(thing: Any) -> bool:
    return inspect.isclass(thing) and hasattr(thing, "field") and not getattr(thing, "_is_protocol", False)


def _is_callable(thing: Any) -> bool:
    """Return whether a thing is a class of functions: times or couplings."""
    return inspect.isclass(thing) and "__call__" in vars(thing) and not getattr(thing, "_is_protocol", False)


def _is_diffusion(thing: Any) -> bool:
    """Return whether a thing is a class of functions of one argument, the time."""
    return _is_callable(thing) and len(inspect.signature(thing.__call__).parameters) == 2


def _is_solver(thing: Any) -> bool:
    """Return whether a thing is a class of functions of states and times, made of a field."""
    if not inspect.isclass(thing) or not callable(thing) or thing is Tweedie:
        return False
    walks = "times" in inspect.signature(thing.__call__).parameters
    return walks and (_takes("velocity")(thing) or is_stochastic(thing))


def is_stochastic(solver: Any) -> bool:
    """Return whether a solver is one for SDEs: noise enters its steps."""
    made_of = (("sde",), ("model", "path"), ("velocity", "path"), ("w",))
    return any(_takes(*names, "noise")(solver) for names in made_of)


def solves(solver: Any, kind: str) -> bool:
    """Return whether a solver is one for the ODE, 'ode', or for SDEs, 'sde'; one that is given w is for both."""
    return _takes("velocity", "w")(solver) or is_stochastic(solver) == (kind == "sde")


def asks_the_network(solver: Any) -> bool:
    """Return whether a solver asks the network itself, and not the velocity that it stands for."""
    return _takes("model")(solver)


def _is_weight(thing: Any) -> bool:
    """Return whether a thing is a function of a path."""
    return inspect.isfunction(thing) and _takes("path")(thing)


def _is_variable(thing: Any) -> bool:
    """Return whether a thing is a function of log(alpha / sigma) alone."""
    return inspect.isfunction(thing) and len(inspect.signature(thing).parameters) == 1


def _is_grid(thing: Any) -> bool:
    """Return whether a thing is a function of path, steps and interval to times, and of no network."""
    return inspect.isfunction(thing) and _takes("path", "steps", "interval")(thing) and not _takes("velocity")(thing)


def _is_data(thing: Any) -> bool:
    """Return whether a thing is a function that says it returns a `Split`."""
    from ..data.images import Split

    return inspect.isfunction(thing) and get_type_hints(thing).get("return") is Split


def _is_extractor(thing: Any) -> bool:
    """Return whether a thing is a class of functions from images to features."""
    return _is_callable(thing) and hasattr(thing, "frechet")


def wants_loss_curve(w: Component) -> bool:
    """Return whether a w(t) follows from how well the network has learnt."""
    return _takes("loss_curve")(w.target)


DATA = Slot("data", "sitkit.recipes.data", _is_data, bounds={"classes": (0, 10**6), "size": (0, 2**16)})
PATH = Slot("path", "sitkit.interpolants", _is_path, usual="linear")
SAMPLED = replace(PATH, absent="auto")
QUANTITY = Slot("quantity", "sitkit.objectives.quantities", _is_quantity, plain=True)
WEIGHT = Slot("weight", "sitkit.objectives.weights", _is_weight, given=frozenset({"path"}), absent="none")
OBJECTIVE = Slot(
    "objective",
    "sitkit.objectives",
    _is_objective,
    given=frozenset({"path"}),
    usual="matching",
    nested={"predict": QUANTITY, "measure": replace(QUANTITY, absent="auto"), "weight": WEIGHT},
)
_of_times: dict[str, Slot] = {}
TIMES = Slot("times", "sitkit.objectives.times", _is_callable, usual="uniform", nested=_of_times)
_of_times["times"] = TIMES  # some are made of others
COUPLING = Slot("coupling", "sitkit.objectives.couplings", _is_callable, absent="independent")
IMAGE_SIZES = ("input_size", "in_channels", "num_classes")
BACKBONE = Slot(
    "backbone", "sitkit.backbones", _takes(*IMAGE_SIZES), given=frozenset(IMAGE_SIZES), bounds={"depth": (1, 10_000)}
)
DIFFUSION = Slot("w", "sitkit.samplers", _is_diffusion, given=frozenset({"path", "loss_curve"}), usual="sigma")
VARIABLE = Slot("variable", "sitkit.samplers.log_snr", _is_variable, plain=True)
SOLVER = Slot(
    "solver",
    "sitkit.samplers",
    _is_solver,
    given=frozenset({"velocity", "path", "sde", "w", "model", "noise"}),
    nested={"variable": VARIABLE},
    absent="auto",
)
ROUGHNESS = Slot("roughness", "sitkit.samplers.roughness", _is_callable, usual="normal_roughness")
GRID = Slot(
    "times",
    "sitkit.samplers.grids",
    _is_grid,
    given=frozenset({"path", "steps", "interval"}),
    nested={"roughness": ROUGHNESS},
    absent="auto",
)
FEATURES = Slot("features", "sitkit.recipes.features", _is_extractor, usual="pixels")
