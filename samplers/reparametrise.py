r"""A field learnt on one path, read along another.

The states of two paths with one signal-to-noise ratio differ by a factor only: if $\alpha_1(u)/\sigma_1(u) =
\alpha_2(t)/\sigma_2(t)$, then $x_t = c\,x_u$ with $c = \sigma_2(t)/\sigma_1(u) = \alpha_2(t)/\alpha_1(u)$, and x
and eps are the same. So the posterior means of x and eps, and with them the velocity, carry over (Kingma et al.,
arXiv 2107.00630).

The field is asked at a rounded time, and not at an end at which its velocity is infinite. On `VP`, whose noise is
a root of 1 - t, that may be another noise by far. So of states that are mostly noise the data are taken from the field,
and of others its score, of which either hardly depends on how much noise there is; the rest follows from the state.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from .guided_rows import as_column
from .jumps import jumps_of
from .precision import column, wide
from .protocols import Field, Path, rows_of
from .times import has_derivative, know, known

PARTS, ROUNDS = 64, 9
"""A time is found among so many parts of the unit interval, and again among so many of that: 64^9 = 2^54."""


def reparametrise(velocity: Field, trained: Path, to: Path) -> Field:
    """Return the velocity along `to` of a field that is the velocity along `trained`; one call costs one call.

    Where `to` is noisier or cleaner than `trained` ever is (VP begins at alpha = .0066), the field is asked at the
    nearest end of `trained`, which is no longer exact.
    """
    return ReparametrisedVelocity(velocity, trained, to)


@dataclass(frozen=True, eq=False)
class ReparametrisedVelocity:
    """A field: the velocity along `to` of a field that is the velocity along `trained`."""

    velocity: Field
    trained: Path
    to: Path
    _found: dict[float, float] = field(init=False, repr=False, default_factory=dict)
    """The times of `trained`, by those of `to`, that the host has looked for."""
    _jumps: tuple[tuple[float, float], ...] = field(init=False, repr=False)
    """The times at which the velocity is discontinuous: of `trained`, and of `to`."""

    def __post_init__(self) -> None:
        own = jumps_of(self.velocity)
        times = torch.tensor(own, dtype=torch.float64, device="cpu")
        along = _same_ratio(self.to, self.trained, times).tolist() if own else []
        object.__setattr__(self, "_jumps", tuple(zip(own, along, strict=True)))

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the velocity, (B, *), at states x and times t (B,) of `to`.

        Raises:
            ValueError: it is infinite there, or a derivative by the times is asked for: they are matched by bisection.
        """
        if not torch.compiler.is_compiling() and has_derivative(t):
            raise ValueError(
                "a reparametrised field has no derivative by its times: ask for none (torch.no_grad, detach), or train "
                "along the path itself"
            )
        time = known(t)
        if time is not None:  # one time for all rows, matched on the host
            t = torch.tensor(time, dtype=t.dtype, device="cpu")
        dtype, state, given, t = x.dtype, x.to(wide(x.dtype)), t, t.double()
        at = _match(self.trained, self.to, t, self._same_ratio(t), state.dtype)
        at = at._replace(asked=self._on_its_side(at.asked, given))
        x_u = column(at.scale, state) * state
        v = self.velocity(x_u.to(dtype), at.asked if at.asked.ndim else self._of_rows(at.asked, x))
        if not at.noisy.ndim:
            return (self._by_data if at.noisy else self._by_noise)(state, x_u, v, at)
        clean, noisy = self._by_noise(state, x_u, v, at), self._by_data(state, x_u, v, at)
        return torch.where(as_column(at.noisy, x), noisy, clean)

    def _by_noise(self, x: Tensor, x_u: Tensor, v: Tensor, at: "Match") -> Tensor:
        """Return the velocity of rows with more data than noise; others are done as if at t = 1/2."""
        u, t = (each if not each.ndim else torch.where(at.noisy, 0.5, each) for each in (at.u, at.t))
        eps = column(at.noise, x) * self.trained.noise_from_velocity(v, x_u, u)
        data = (x - column(self.to.sigma(t), x) * eps) / column(self.to.alpha(t), x)
        return self.to.velocity(data, eps, t)

    def _by_data(self, x: Tensor, x_u: Tensor, v: Tensor, at: "Match") -> Tensor:
        """Return the velocity of rows with more noise than data; others are done as if at t = 1/2."""
        u, t = (each if not each.ndim else torch.where(at.noisy, each, 0.5) for each in (at.u, at.t))
        data = self.trained.data_from_velocity(v, x_u, u)
        eps = (x - column(self.to.alpha(t), x) * data) / column(self.to.sigma(t), x)
        return self.to.velocity(data, eps, t)

    def _same_ratio(self, t: Tensor) -> Tensor:
        if t.ndim:
            return _same_ratio(self.trained, self.to, t)
        time = float(t)
        if time not in self._found:
            self._found[time] = float(_same_ratio(self.trained, self.to, t))
        return torch.full_like(t, self._found[time])

    def _on_its_side(self, asked: Tensor, t: Tensor) -> Tensor:
        """Return the times to ask at, moved to that side of each jump on which the times t of `to` are, if need be."""
        for own, along in self._jumps:
            edge = torch.full((), own, dtype=asked.dtype, device=asked.device)
            image = torch.full((), along, dtype=t.dtype, device=t.device)
            above = torch.maximum(asked, torch.nextafter(edge, edge + 1))
            below = torch.minimum(asked, torch.nextafter(edge, edge - 1))
            asked = torch.where(t > image, above, torch.where(t < image, below, edge))
        return asked

    @staticmethod
    def _of_rows(asked: Tensor, x: Tensor) -> Tensor:
        """Return a time that the host knows as times (B,) of states (B, *)."""
        time = float(asked)
        return know(torch.full((len(x),), time, dtype=asked.dtype, device=x.device), time)

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times of `to` at which the field is discontinuous."""
        return tuple(along for _, along in self._jumps)

    @property
    def rows(self) -> Callable[[Tensor], "ReparametrisedVelocity"]:
        """The function from `index` (N,) to the field of those rows; only of a velocity that has it.

        Raises:
            AttributeError: the velocity is no `RowField`, and neither is this one.
        """
        restrict = rows_of(self.velocity)
        if restrict is None:
            raise AttributeError("rows: the velocity must have it")
        return lambda index: ReparametrisedVelocity(restrict(index), self.trained, self.to)


class Match(NamedTuple):
    """Where a field is asked, of the shape of the times, on their device."""

    t: Tensor
    """The time of `to`, float64."""
    u: Tensor
    """The time of `trained` at which the field is asked, float64."""
    asked: Tensor
    """The same as it is handed to the field."""
    scale: Tensor
    """By which the state is multiplied."""
    noise: Tensor
    """By which the noise of the field is multiplied, for the score to be that of the field."""
    noisy: Tensor
    """Whether there is more noise than data, bool."""


def _match(trained: Path, to: Path, t: Tensor, u: Tensor, dtype: torch.dtype) -> Match:
    """Return where to ask the field at times t and u of one signal-to-noise ratio, () or (B,), by times of a dtype."""
    asked = u.to(dtype)
    edge = torch.ones_like(asked)
    inside = torch.nextafter(edge, edge / 2)
    steep = trained.sigma_dot(asked.double()).isinf()
    asked = torch.where((asked == 1) & ((u < 1) | steep), inside, asked)
    exact = asked.double()
    alpha_1, sigma_1, alpha_2, sigma_2 = trained.alpha(exact), trained.sigma(exact), to.alpha(t), to.sigma(t)
    noisy = sigma_2 > alpha_2
    scale = torch.where(noisy, sigma_1 / sigma_2, alpha_1 / alpha_2)
    noise = torch.where(noisy | (sigma_1 == 0), 1.0, sigma_2 * alpha_1 / (alpha_2 * sigma_1))
    return Match(t, exact, asked, scale, noise, noisy)


def _same_ratio(trained: Path, to: Path, t: Tensor) -> Tensor:
    """Return the times of `trained` whose signal-to-noise ratio is that of `to` at times t, () or (B,), in float64."""
    alpha, sigma = to.alpha(t), to.sigma(t)
    parts = torch.arange(1, PARTS, dtype=torch.float64, device=t.device) / PARTS
    u, width = torch.zeros_like(t), 1.0
    for _ in range(ROUNDS):
        inner = u[..., None] + width * parts
        flat = inner.flatten()
        signal, noise = (function(flat).reshape(inner.shape) for function in (trained.alpha, trained.sigma))
        width /= PARTS
        u = u + width * (signal * sigma[..., None] <= alpha[..., None] * noise).sum(-1)
    return torch.where(alpha == 0, 0.0, torch.where(sigma == 0, 1.0, u + width / 2))
