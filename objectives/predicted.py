"""The velocity of a network that predicts any quantity."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from .protocols import Field


@dataclass(frozen=True, eq=False)
class PredictedVelocity:
    """A field: the velocity that the network's output stands for. One call costs one call of the network.

    What the network says of itself holds for it as well: `rows`, which restricts it to some of its rows, and `jumps`,
    the times at which it is discontinuous.

    Args:
        model: the network as a field.
        convert: (output, x_t, t) -> velocity (B, *).
    """

    model: Field
    convert: Callable[[Tensor, Tensor, Tensor], Tensor]

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor:
        """Return the velocity, (B, *), at states x_t and times t (B,).

        Raises:
            ValueError: it is infinite there.
        """
        return self.convert(self.model(x_t, t), x_t, t)

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times at which the network is discontinuous."""
        model: Any = self.model
        while isinstance(model, partial):
            model = model.func
        return tuple(getattr(model, "jumps", ()))

    @property
    def rows(self) -> Callable[[Tensor], "PredictedVelocity"]:
        """The function from `index` (N,) to the field of those rows; only of a network that has it.

        Raises:
            AttributeError: the network has no method `rows`.
        """
        restrict: Any = getattr(self.model, "rows", None)
        if not callable(restrict):
            raise AttributeError("rows: the network must have this method")
        return lambda index: PredictedVelocity(restrict(index), self.convert)
