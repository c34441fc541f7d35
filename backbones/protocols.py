"""What a backbone is to the rest of the world."""

from typing import Protocol

from torch import Tensor


class Backbone(Protocol):
    """A network over states, times and, where it is conditional, labels."""

    def __call__(self, x: Tensor, t: Tensor, /, y: Tensor | None = None) -> Tensor:
        """Return the network's output, of shape (B, *), for states (B, *), times (B,) and labels (B,)."""
        ...
