"""A network and its labels."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Conditional:
    """model(x, t, y=y): a field, as `partial(model, y=y)`, that can be restricted to some of its rows.

    Solvers that give every sample a time of its own (`solve_each`) and guidance in an interval (`Autoguidance`) pay for
    no other rows of a field that can. Without labels it says of any function of (x, t) that it treats rows alike.

    Args:
        model: a network, called as (x, t, y=labels), or as (x, t) without labels.
        y: labels, (B,), or None.
    """

    model: Callable[..., Tensor]
    y: Tensor | None = None

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the field, (B, *), at states x and times t (B,).

        Raises:
            ValueError: x has not as many rows as there are labels.
        """
        if self.y is None:
            return self.model(x, t)
        if len(x) != len(self.y):
            raise ValueError(f"there are {len(self.y)} labels, and x has {len(x)} rows")
        return self.model(x, t, y=self.y)

    def rows(self, index: Tensor, /) -> "Conditional":
        """Return the field of the rows `index` (N,)."""
        return self if self.y is None else replace(self, y=self.y[index])
