r"""Conversion of a velocity field from one path to another.

The states of two paths at the same signal-to-noise ratio differ only by a factor. If $\alpha_1(u)/\sigma_1(u) =
\alpha_2(t)/\sigma_2(t)$, then $x_t = c\,x_u$ with $c = \sigma_2(t)/\sigma_1(u) = \alpha_2(t)/\alpha_1(u)$, for the same
x and eps. Hence the posterior means of x and eps, and with them the velocity, can be computed from the field on the
other path (Kingma et al., arXiv 2107.00630).

The field is evaluated at u rounded to its dtype. Near an end of a path this changes the noise level, considerably so on
`VP`, where sigma is a square root of 1 - t. To be robust, the conversion takes the predicted data where
sigma > alpha, and the score where alpha >= sigma, because these depend little on the noise level.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .jumps import jumps_of
from .known_time import known_time, with_known_time
from .path_from_noise import check_from_noise
from .protocols import Field, Path, rows_method
from .states import broadcast_rows, column, upcast
from .time_matching import TimeMatch, match_times, times_of_equal_snr
from .transforms import has_derivative


def reparametrise(velocity: Field, trained: Path, to: Path) -> Field:
    """Return the velocity along path `to`, given the velocity along path `trained`. NFE: one per call.

    Where `to` has a noise level that `trained` never reaches (on VP, alpha(0) = 0.0066), the velocity is evaluated at
    the nearest end of `trained`. The result is approximate there. The field has no gradient with respect to its
    times.
    """
    return ReparametrisedVelocity(velocity, trained, to)


@dataclass(frozen=True, eq=False)
class ReparametrisedVelocity:
    """The velocity field along path `to`, computed from the velocity field along path `trained`."""

    velocity: Field
    trained: Path
    to: Path
    _matched_times: dict[float, float] = field(init=False, repr=False, default_factory=dict)
    """A cache of scalar times of `trained`, by the times of `to`."""
    _jumps: tuple[tuple[float, float], ...] = field(init=False, repr=False)
    """The jumps of the velocity, as pairs of the times of `trained` and of `to`."""

    def __post_init__(self) -> None:
        for path in (self.trained, self.to):
            check_from_noise(path, "reparametrise")
        jumps = jumps_of(self.velocity)
        times = torch.tensor(jumps, dtype=torch.float64, device="cpu")
        converted = times_of_equal_snr(self.to, self.trained, times).tolist() if jumps else []
        object.__setattr__(self, "_jumps", tuple(zip(jumps, converted, strict=True)))

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the velocity, (B, *), at states x and times t (B,) of `to`.

        Raises:
            ValueError: the velocity is infinite, or a gradient by the times is requested, which the search for the
                time of `trained` does not have.
        """
        if not torch.compiler.is_compiling() and has_derivative(t):
            raise ValueError(
                "a reparametrised field has no derivative by its times: detach them or use torch.no_grad, or train "
                "along the path itself"
            )
        t_given, time = t, known_time(t)
        if time is not None:  # the same time for all rows: match it on the CPU
            t = torch.tensor(time, dtype=t.dtype, device="cpu")
        dtype, state, t = x.dtype, upcast(x), t.double()
        match = match_times(self.trained, self.to, t, self._times_of_equal_snr(t), state.dtype)
        match = match._replace(u_rounded=self._keep_side_of_jumps(match.u_rounded, t_given))
        x_u = column(match.scale, state) * state
        u = match.u_rounded if match.u_rounded.ndim else self._expand_to_rows(match.u_rounded, x)
        v = self.velocity(x_u.to(dtype), u)
        if not match.noisy.ndim:
            return (self._from_data if match.noisy else self._from_noise)(state, x_u, v, match)
        clean, noisy = self._from_noise(state, x_u, v, match), self._from_data(state, x_u, v, match)
        return torch.where(broadcast_rows(match.noisy, x), noisy, clean)

    def _from_noise(self, x: Tensor, x_u: Tensor, v: Tensor, match: TimeMatch) -> Tensor:
        """Return the velocity by way of the predicted noise, for rows with alpha >= sigma.

        Other rows, whose results are not used, are computed at t = 1/2 to stay finite.
        """
        u, t = (each if not each.ndim else torch.where(match.noisy, 0.5, each) for each in (match.u, match.t))
        eps = column(match.noise_scale, x) * self.trained.noise_from_velocity(v, x_u, u)
        data = (x - column(self.to.sigma(t), x) * eps) / column(self.to.alpha(t), x)
        return self.to.velocity(data, eps, t)

    def _from_data(self, x: Tensor, x_u: Tensor, v: Tensor, match: TimeMatch) -> Tensor:
        """Return the velocity by way of the predicted data, for rows with sigma > alpha.

        Other rows, whose results are not used, are computed at t = 1/2 to stay finite.
        """
        u, t = (each if not each.ndim else torch.where(match.noisy, each, 0.5) for each in (match.u, match.t))
        data = self.trained.data_from_velocity(v, x_u, u)
        eps = (x - column(self.to.alpha(t), x) * data) / column(self.to.sigma(t), x)
        return self.to.velocity(data, eps, t)

    def _times_of_equal_snr(self, t: Tensor) -> Tensor:
        """Return the times of `trained` for times t of `to`. Scalar times are cached."""
        if t.ndim:
            return times_of_equal_snr(self.trained, self.to, t)
        time = float(t)
        if time not in self._matched_times:
            self._matched_times[time] = float(times_of_equal_snr(self.trained, self.to, t))
        return torch.full_like(t, self._matched_times[time])

    def _keep_side_of_jumps(self, u: Tensor, t: Tensor) -> Tensor:
        """Return u on the same side of each jump as t. Rounding may have moved it to the other side."""
        for jump_u, jump_t in self._jumps:
            edge_u = torch.full((), jump_u, dtype=u.dtype, device=u.device)
            edge_t = torch.full((), jump_t, dtype=t.dtype, device=t.device)
            above = torch.maximum(u, torch.nextafter(edge_u, edge_u + 1))
            below = torch.minimum(u, torch.nextafter(edge_u, edge_u - 1))
            u = torch.where(t > edge_t, above, torch.where(t < edge_t, below, edge_u))
        return u

    @staticmethod
    def _expand_to_rows(u: Tensor, x: Tensor) -> Tensor:
        """Return a scalar time on the CPU as times (B,) of states x (B, *), with the attribute `known_time`."""
        time = float(u)
        return with_known_time(torch.full((len(x),), time, dtype=u.dtype, device=x.device), time)

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times of `to` at which the field is discontinuous."""
        return tuple(jump_t for _, jump_t in self._jumps)

    @property
    def rows(self) -> Callable[[Tensor], "ReparametrisedVelocity"]:
        """A function from `index` (N,) to the field of those rows. It exists if the velocity has the method `rows`.

        Raises:
            AttributeError: the velocity has no method `rows`.
        """
        restrict = rows_method(self.velocity)
        if restrict is None:
            raise AttributeError("the velocity has no method `rows`, so this field has none")
        return lambda index: ReparametrisedVelocity(restrict(index), self.trained, self.to)
