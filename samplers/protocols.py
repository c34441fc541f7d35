"""Protocols of samplers: fields, paths, noise sources, solvers and networks."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

from torch import Tensor

Field: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A function of states (B, *) and times (B,) to (B, *)."""

ScoredField: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A function of states (B, *) and times (B,) to velocity and score, both (B, *)."""

Diffusion: TypeAlias = Callable[[Tensor], Tensor]
"""A diffusion coefficient: a function t -> w(t) >= 0 that keeps t's shape.

Solvers call it with times in float32 or float64, scalars or (N,). If it is discontinuous, it may list the times in an
attribute `jumps`, at which solvers that integrate w split their steps.
"""


class RowField(Protocol):
    """A field that can be restricted to some rows of the batch, together with its labels and other data of the rows."""

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor: ...

    def rows(self, index: Tensor, /) -> Field:
        """Return the field restricted to the rows `index`, (N,): a function of states (N, *) and times (N,)."""
        ...


def rows_method(field: Callable[..., Tensor]) -> Callable[[Tensor], Callable[..., Tensor]] | None:
    """Return the method `rows` of a `RowField` or of a function of data, or None.

    `rows` of `Counted` is a number and not returned.
    """
    rows = getattr(field, "rows", None)
    return rows if callable(rows) else None


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
    """The methods of an interpolant that samplers use. `sitkit.interpolants.Interpolant` implements them."""

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
    """A source of noise: a function that returns standard normal noise, of x's shape, for the step from t to s."""

    def __call__(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor: ...


class Solver(Protocol):
    """A solver of an ODE or SDE on a grid of times."""

    def __call__(self, x: Tensor, times: Tensor, /) -> Iterator[Tensor]:
        """Yield the state at each of `times`, starting with x itself."""
        ...


class Model(Protocol):
    """A network that takes conditions as keyword argument y."""

    def __call__(self, x: Tensor, t: Tensor, /, *, y: Any) -> Tensor:
        """Return the output, (B, *), for states (B, *), times (B,) and conditions (B, ...), or dicts of them."""
        ...
