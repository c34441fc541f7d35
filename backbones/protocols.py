"""Protocols of backbones: the paths that exact fields use, and the interface of networks."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from torch import Tensor

Field: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A function of states (B, *) and times (B,) to (B, *)."""


class Path(Protocol):
    """The methods of an interpolant that exact fields use. `sitkit.interpolants.Interpolant` implements them."""

    def alpha(self, t: Tensor) -> Tensor: ...
    def sigma(self, t: Tensor) -> Tensor: ...
    def alpha_dot(self, t: Tensor) -> Tensor: ...
    def sigma_dot(self, t: Tensor) -> Tensor: ...


class TwoSidedPath(Protocol):
    """The methods of a two-sided path that exact fields use. `sitkit.interpolants.TwoSided` implements them."""

    def alpha(self, t: Tensor) -> Tensor: ...
    def beta(self, t: Tensor) -> Tensor: ...
    def gamma(self, t: Tensor) -> Tensor: ...
    def alpha_dot(self, t: Tensor) -> Tensor: ...
    def beta_dot(self, t: Tensor) -> Tensor: ...
    def gamma_gamma_dot(self, t: Tensor) -> Tensor: ...


class Backbone(Protocol):
    """A network of states, times and, if it is conditional, labels."""

    def __call__(self, x: Tensor, t: Tensor, /, y: Tensor | None = None) -> Tensor:
        """Return the network's output, of shape (B, *), for states (B, *), times (B,) and labels (B,)."""
        ...
