"""A network and its conditions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .conditions import check_rows, rows_of_conditions
from .jumps import jumps_of


@dataclass(frozen=True, eq=False)
class Conditional:
    """model(x, t, y=y): a field, as `partial(model, y=y)`, that can be restricted to some of its rows.

    Solvers that give every sample a time of its own (`solve_each`) and guidance in an interval (`Autoguidance`) pay for
    no other rows of a field that can. Without conditions it says of any function of (x, t) that it treats rows alike.

    Args:
        model: a network, called as (x, t, y=conditions), or as (x, t) without any.
        y: labels, (B,), or conditions of any shape (B, ...), or dicts, tuples and lists of such; or None.
    """

    model: Callable[..., Tensor]
    y: Any = None

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the field, (B, *), at states x and times t (B,).

        Raises:
            ValueError: x has not as many rows as there are conditions.
        """
        if self.y is None:
            return self.model(x, t)
        check_rows(self.y, len(x))
        return self.model(x, t, y=self.y)

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times at which the network says that it is discontinuous."""
        return jumps_of(self.model)

    def rows(self, index: Tensor, /) -> "Conditional":
        """Return the field of the rows `index` (N,)."""
        return self if self.y is None else replace(self, y=rows_of_conditions(self.y, index))
