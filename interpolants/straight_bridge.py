"""The straight line between source and data, to which bridges add noise."""

import torch
from torch import Tensor

from .two_sided import TwoSided


class StraightBridge(TwoSided):
    """A two-sided path with alpha(t) = t and beta(t) = 1 - t. Subclasses define gamma."""

    def alpha(self, t: Tensor) -> Tensor:
        """Return t."""
        return t

    def beta(self, t: Tensor) -> Tensor:
        """Return 1 - t."""
        return 1 - t

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)

    def beta_dot(self, t: Tensor) -> Tensor:
        """Return -1."""
        return -torch.ones_like(t)
