"""What samplers ask of the outside, and of one another."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

from torch import Tensor

Field: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A function of states (B, *) and times (B,) to (B, *)."""

Diffusion: TypeAlias = Callable[[Tensor], Tensor]
"""A function t -> w(t) >= 0 that keeps t's shape; a plain function will do."""


class RowField(Protocol):
    """A field that can be restricted to some of its rows, whatever it holds of each, such as labels."""

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor: ...

    def rows(self, index: Tensor, /) -> Field:
        """Return the field of the rows `index` (N,) of this one's: of states (N, *) and times (N,)."""
        ...


def rows_of(field: Field) -> Callable[[Tensor], Field] | None:
    """Return the method `rows` of a `RowField`, None of another field: a number of rows, as `Counted` has, is none."""
    rows = getattr(field, "rows", None)
    return rows if callable(rows) else None


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
    """The part of an interpolant that samplers use; `sitkit.interpolants.Interpolant` has it."""

    def alpha(self, t: Tensor) -> Tensor: ...
    def sigma(self, t: Tensor) -> Tensor: ...
    def alpha_dot(self, t: Tensor) -> Tensor: ...
    def sigma_dot(self, t: Tensor) -> Tensor: ...
    def mix(self, x: Tensor, eps: Tensor, t: Tensor, /) -> Tensor: ...
    def velocity(self, x: Tensor, eps: Tensor, t: Tensor, /) -> Tensor: ...
    def data_from_velocity(self, velocity: Tensor, x_t: Tensor, t: Tensor, /) -> Tensor: ...
    def noise_from_velocity(self, velocity: Tensor, x_t: Tensor, t: Tensor, /) -> Tensor: ...
    def score_from_velocity(self, velocity: Tensor, x_t: Tensor, t: Tensor, /) -> Tensor: ...
    def posterior(self, t: Tensor, s: Tensor, /) -> Posterior: ...


class NoiseSource(Protocol):
    """The standard normal noise of the step from time t to time s, of the shape of x."""

    def __call__(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor: ...


class Solver(Protocol):
    """Carries states along a grid of times."""

    def __call__(self, x: Tensor, times: Tensor, /) -> Iterator[Tensor]:
        """Yield the state at each of `times`, the first being x itself."""
        ...


class Model(Protocol):
    """A network that takes conditions by the name y."""

    def __call__(self, x: Tensor, t: Tensor, /, *, y: Any) -> Tensor:
        """Return (B, *) for states (B, *), times (B,) and conditions: tensors (B, ...), or dicts of such."""
        ...
