"""Fields that are computed from the output of a network."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from .protocols import Field

Converted = TypeVar("Converted")


@dataclass(frozen=True, eq=False)
class ConvertedOutput(Generic[Converted]):
    """The output of a network, converted to a velocity, or to velocity and score. NFE: one per call.

    A call raises ValueError at a time at which the result is infinite. Reading times on a GPU would cause a
    synchronisation. There, the check uses the attribute `known_time` of t, which solvers set.

    The attributes `jumps` (times of discontinuities) and `rows` (restriction to some rows of the batch) of the network
    are forwarded.

    Args:
        model: the network as a field.
        convert: (output, x_t, t) -> the result, of tensors (B, *).
        channels: the ratio of the output's channels to those of the state.
    """

    model: Field
    convert: Callable[[Tensor, Tensor, Tensor], Converted]
    channels: int = 1

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Converted:
        """Return the converted output at states x_t and times t (B,).

        Raises:
            ValueError: the result is infinite.
        """
        self._check_known_time(t)
        return self.convert(self.model(x_t, t), x_t, t)

    def _check_known_time(self, t: Tensor) -> None:
        """Raise ValueError if the result is infinite at the `known_time` of times on a GPU."""
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
    def rows(self) -> Callable[[Tensor], "ConvertedOutput[Converted]"]:
        """A function that maps `index` (N,) to the field of those rows. It exists only if the network has `rows`.

        Raises:
            AttributeError: the network has no method `rows`.
        """
        restrict: Any = getattr(self.model, "rows", None)
        if not callable(restrict):
            raise AttributeError("the network has no method `rows`, so this field has none")
        return lambda index: replace(self, model=restrict(index))
