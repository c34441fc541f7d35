"""Counting the number of function evaluations (NFE)."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .jumps import jumps_of


class Counted:
    """A field or network that counts its NFE. Vector-Jacobian products of it are not counted.

    Attributes:
        field: the field or network.
        calls: the number of calls.
        rows: the number of rows of all calls, the sum of their batch sizes.
    """

    def __init__(self, field: Callable[..., Tensor]):
        self.field = field
        self.calls = 0
        self.rows = 0

    def __call__(self, x: Tensor, t: Tensor, /, **conditions: Any) -> Tensor:
        """Call the field and increase the counts."""
        self.calls += 1
        self.rows += len(x)
        return self.field(x, t, **conditions)

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times at which the field is discontinuous."""
        return jumps_of(self.field)
