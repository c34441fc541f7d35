"""Protocols of objectives: the paths and networks that they use, and the interfaces that they implement."""

from collections.abc import Callable
from typing import Protocol, TypeAlias, runtime_checkable

from torch import Tensor

Field: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A function of states (B, *) and times (B,) to (B, *), such as `functools.partial(network, y=labels)`."""


ScoredField: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A function of states (B, *) and times (B,) to velocity and score, both (B, *)."""


class Posterior(Protocol):
    """The normal distribution of x_s given x_t and x, with mean data x + state x_t.

    `forward` is the variance of x_t given x_s.
    """

    @property
    def data(self) -> Tensor: ...
    @property
    def state(self) -> Tensor: ...
    @property
    def variance(self) -> Tensor: ...
    @property
    def forward(self) -> Tensor: ...


class Path(Protocol):
    """The methods of an interpolant that objectives use. `sitkit.interpolants.Interpolant` implements them."""

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
    """A path with the posteriors of its Markov chain. `sitkit.interpolants.Interpolant` implements it."""

    def posterior(self, t: Tensor, s: Tensor, /) -> Posterior: ...


@runtime_checkable
class TwoSidedPath(Protocol):
    """The methods of a two-sided path that objectives use. `sitkit.interpolants.TwoSided` implements them."""

    def gamma(self, t: Tensor) -> Tensor: ...
    def gamma_dot(self, t: Tensor) -> Tensor: ...
    def mix(self, x: Tensor, source: Tensor, z: Tensor, t: Tensor, /) -> Tensor: ...
    def drift(self, x: Tensor, source: Tensor, t: Tensor, /) -> Tensor: ...
    def velocity_from(self, drift: Tensor, noise: Tensor, t: Tensor, /) -> Tensor: ...
    def score_from_noise(self, noise: Tensor, t: Tensor, /) -> Tensor: ...


class Objective(Protocol):
    """A loss, and the conversion of a network's output to the velocity."""

    def __call__(self, model: Field, x: Tensor, eps: Tensor, t: Tensor, /) -> Tensor:
        """Return the loss of each sample, (B,), for data and noise (B, *) and times (B,)."""
        ...

    def field(self, model: Field, /) -> Field:
        """Return the velocity field of the model's output."""
        ...


@runtime_checkable
class TwoSidedObjective(Protocol):
    """A loss on a two-sided path, and the conversions of a network's output. `Bridging` implements it."""

    def __call__(self, model: Field, x: Tensor, source: Tensor, z: Tensor, t: Tensor, /) -> Tensor:
        """Return the loss of each sample, (B,), for data, source and noise (B, C, *) and times (B,)."""
        ...

    def field(self, model: Field, /) -> Field:
        """Return the velocity field of the model's output."""
        ...

    def scored(self, model: Field, /) -> ScoredField:
        """Return the function (x_t, t) -> (velocity, score) of the model's output."""
        ...


class Weight(Protocol):
    """A weight of the loss: a function of times (B,) to weights (B,)."""

    def __call__(self, t: Tensor, /) -> Tensor: ...


class Times(Protocol):
    """A distribution of times: a function of uniform numbers (B,) in [0, 1) to times (B,) in [0, 1]."""

    def __call__(self, uniforms: Tensor, /) -> Tensor: ...


class Coupling(Protocol):
    """A coupling of noise, or of a source, with data: a function of data, noise or source, and labels.

    It returns the noise or source in another order, or a source that is made of the data.
    """

    def __call__(self, x: Tensor, eps: Tensor, y: Tensor | None = None, /) -> Tensor: ...
