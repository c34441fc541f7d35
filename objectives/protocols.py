"""What objectives ask of the outside: a path and a network."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from torch import Tensor

Field: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A function of states (B, *) and times (B,) to (B, *); `partial(network, y=y)` is one."""


class Posterior(Protocol):
    """x_s given x_t and x: normal, with mean data x + state x_t; and `forward`, the variance of x_t given x_s."""

    @property
    def data(self) -> Tensor: ...
    @property
    def state(self) -> Tensor: ...
    @property
    def variance(self) -> Tensor: ...
    @property
    def forward(self) -> Tensor: ...


class Path(Protocol):
    """The part of an interpolant that objectives use; `sitkit.interpolants.Interpolant` has it."""

    def alpha(self, t: Tensor) -> Tensor: ...
    def sigma(self, t: Tensor) -> Tensor: ...
    def alpha_dot(self, t: Tensor) -> Tensor: ...
    def sigma_dot(self, t: Tensor) -> Tensor: ...
    def mix(self, x: Tensor, eps: Tensor, t: Tensor, /) -> Tensor: ...
    def velocity(self, x: Tensor, eps: Tensor, t: Tensor, /) -> Tensor: ...
    def velocity_from_noise(self, eps: Tensor, x_t: Tensor, t: Tensor, /) -> Tensor: ...
    def velocity_from_score(self, score: Tensor, x_t: Tensor, t: Tensor, /) -> Tensor: ...
    def velocity_from_data(self, data: Tensor, x_t: Tensor, t: Tensor, /) -> Tensor: ...


class MarkovPath(Path, Protocol):
    """A path that also knows its Markov chain; `sitkit.interpolants.Interpolant` does."""

    def posterior(self, t: Tensor, s: Tensor, /) -> Posterior: ...


class Objective(Protocol):
    """What a network learns, and how its output is read."""

    def __call__(self, model: Field, x: Tensor, eps: Tensor, t: Tensor, /) -> Tensor:
        """Return the loss of each sample, (B,), for data and noise (B, *) and times (B,)."""
        ...

    def field(self, model: Field, /) -> Field:
        """Return the velocity that the network stands for."""
        ...


class Weight(Protocol):
    """A weight of the loss: times (B,) to (B,)."""

    def __call__(self, t: Tensor, /) -> Tensor: ...


class Times(Protocol):
    """A distribution of times, as a function of uniform numbers (B,) in [0, 1) to times (B,) in [0, 1]."""

    def __call__(self, uniforms: Tensor, /) -> Tensor: ...


class Coupling(Protocol):
    """Who is paired with whom: data (B, *), noise (B, *) and labels (B,) or None to the noise in another order."""

    def __call__(self, x: Tensor, eps: Tensor, y: Tensor | None = None, /) -> Tensor: ...
