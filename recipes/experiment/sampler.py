"""The section `sampler` of a recipe."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ..support.schema import Section
from . import slots
from .components import Component
from .field_types import Interval, Precision, SolverSteps


class Sampler(Section):
    """How samples are generated.

    `solver` takes `steps` steps through `interval`, at `times`. If `last` is not `none`, the last step is of that kind
    and of length `last_step`. `auto` stands for the settings of `samplers.plan`, with one network evaluation a step, or
    for those that another solver needs (`experiment.auto_values`).
    """

    kind: Literal["ode", "sde"] = "ode"
    path: Annotated[Component | None, slots.SAMPLING_PATH] = None
    """The path to sample along. `auto` is the path of training; any other path uses `samplers.reparametrise`."""
    solver: Annotated[Component | None, slots.SOLVER] = None
    steps: SolverSteps = 50
    times: Annotated[Component | None, slots.TIME_GRID] = None
    """The times of the steps: a function of `samplers.grids`."""
    interval: Interval = "auto"
    last: Literal["auto", "none", "euler", "tweedie", "mean"] = "auto"
    last_step: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    w: Annotated[Component, slots.DIFFUSION] = Field(default={}, validate_default=True)
    precision: Precision = "float32"
    """The precision of the network's matmuls. The solver computes in float32."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.solver and not slots.solves(self.solver.target, self.kind):
            raise ValueError(f"solver '{self.solver.kind}' does not fit kind = '{self.kind}'; use 'auto'")
        if self.kind == "ode" and self.last == "mean":
            raise ValueError("last = 'mean' is for SDEs; for an ODE: auto, none, euler or tweedie")
        if self.path and self.solver and slots.takes_network(self.solver.target):
            raise ValueError(f"solver '{self.solver.kind}' takes the network as it was trained: path must be 'auto'")
        if self.path and self.kind == "sde" and slots.needs_loss_curve(self.w):
            raise ValueError(f"w = '{self.w.kind}' is computed along the path of training: path must be 'auto'")
        return self
