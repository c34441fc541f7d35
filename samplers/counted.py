"""Counting what sampling costs."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .jumps import jumps_of


class Counted:
    """A field or a network that counts its `calls`, and its `rows`: the sum of the calls' batch sizes."""

    def __init__(self, field: Callable[..., Tensor]):
        self.field = field
        self.calls = 0
        self.rows = 0

    def __call__(self, x: Tensor, t: Tensor, /, **conditions: Any) -> Tensor:
        """Call the field and count."""
        self.calls += 1
        self.rows += len(x)
        return self.field(x, t, **conditions)

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times at which the field says that it is discontinuous."""
        return jumps_of(self.field)
