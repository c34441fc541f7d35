"""The sampling problem that a method solves within a given NFE."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from sitkit.interpolants import Interpolant
from sitkit.samplers import Counted, Diffusion, Field

Options: TypeAlias = dict[str, str | float]
"""The options of a method, as in JSON."""

Axes: TypeAlias = dict[str, Sequence[str | float]]
"""The candidates for each option, the default first."""


class OverBudget(Exception):
    """A method needs more NFE than allowed."""


class Budget(Counted):
    """A field that counts its calls and refuses more than allowed."""

    def __init__(self, field: Field, calls: int):
        super().__init__(field)
        self.left = calls

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:  # type: ignore[override]
        """Call the field and count.

        Raises:
            OverBudget: the budget is spent.
        """
        if self.calls >= self.left:
            raise OverBudget
        return super().__call__(x, t.to(x.device))


@dataclass(frozen=True)
class Problem:
    """The ODE of a velocity, or its SDE of w, to be solved from noise to data within `calls` NFE."""

    velocity: Field
    path: Interpolant
    w: Diffusion | None
    calls: int
    generator: torch.Generator

    def noise(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return standard normal noise of x's shape: a `NoiseSource`."""
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype, device=x.device)

    def steps(self, cost: int, spent: int = 0) -> int:
        """Return the number of steps at `cost` calls each, if `spent` calls are needed otherwise.

        Raises:
            OverBudget: none.
        """
        if self.calls - spent < cost:
            raise OverBudget
        return (self.calls - spent) // cost

    def start(self, options: Options) -> float:
        """Return the first time: a number, or 1/n for n calls."""
        wanted = options.get("start", 0.0)
        return 1 / (self.calls + 1) if wanted == "1/n" else float(wanted)


Draw: TypeAlias = Callable[[Problem, Tensor, Options], Tensor]
"""Samples from noise x, (B, *), by a method's options."""
