"""A network with bound conditions, as a field."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .conditions import check_rows, select_rows
from .jumps import jumps_of


@dataclass(frozen=True, eq=False)
class Conditional:
    """The field model(x, t, y=y). Unlike `functools.partial(model, y=y)`, it can be restricted to some of its rows.

    `solve_each` and `Autoguidance` with an interval use this to evaluate only the rows that they need. With y = None it
    declares that a function of (x, t) treats all rows alike, so that it can be restricted, too.

    Args:
        model: a network, called as (x, t, y=conditions), or as (x, t) if y is None.
        y: labels, (B,), or conditions of any shape (B, ...), or dicts, tuples and lists of them, or None.
    """

    model: Callable[..., Tensor]
    y: Any = None

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the field, (B, *), at states x and times t (B,).

        Raises:
            ValueError: the number of conditions differs from the number of rows of x.
        """
        if self.y is None:
            return self.model(x, t)
        check_rows(self.y, len(x))
        return self.model(x, t, y=self.y)

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times at which the network is discontinuous."""
        return jumps_of(self.model)

    def rows(self, index: Tensor, /) -> "Conditional":
        """Return the field restricted to the rows `index`, (N,)."""
        return self if self.y is None else replace(self, y=select_rows(self.y, index))
