"""The velocity of a network that predicts any quantity."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .protocols import Field


@dataclass(frozen=True, eq=False)
class PredictedVelocity:
    """A field: the velocity that the network's output stands for. One call costs one call of the network.

    A time at which the velocity is infinite raises ValueError. Times on a device are not looked at, since that waits:
    there the time counts that the solver leaves in the attribute `known_time` of t.

    What the network says of itself holds for it as well: `rows`, which restricts it to some of its rows, and `jumps`,
    the times at which it is discontinuous.

    Args:
        model: the network as a field.
        convert: (output, x_t, t) -> velocity (B, *).
        channels: how many times the channels of a state the output has.
    """

    model: Field
    convert: Callable[[Tensor, Tensor, Tensor], Tensor]
    channels: int = 1

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor:
        """Return the velocity, (B, *), at states x_t and times t (B,).

        Raises:
            ValueError: it is infinite there.
        """
        self._check_known_time(t)
        return self.convert(self.model(x_t, t), x_t, t)

    def _check_known_time(self, t: Tensor) -> None:
        """Raise ValueError if times on a device are known to be one at which the velocity is infinite."""
        time = None if t.device.type == "cpu" else getattr(t, "known_time", None)
        if time is not None:
            output, state = (torch.zeros(1, count, device="cpu") for count in (self.channels, 1))
            self.convert(output, state, torch.tensor([time], dtype=t.dtype, device="cpu"))

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
        return lambda index: replace(self, model=restrict(index))
