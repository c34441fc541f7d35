"""Grids of times, from noise to data: each a function (path, steps) of float64 times (steps + 1,) on the CPU.

Bind what else they take by `functools.partial(power, exponent=2.0)`. All keep the ends of `interval` exactly, and raise
ValueError where two times would be the same float64. `through` moves times of any grid onto the jumps of a field.
"""

import math
from numbers import Integral

import torch
from torch import Tensor

from .exponential import Exponential
from .jumps import through as through  # noqa: PLC0414 (it belongs to the functions of this module)
from .log_snr import log_snr, time_at
from .precision import wide
from .protocols import Field, Path
from .roughness import NormalRoughness, Roughness

Interval = tuple[float, float]
ALL: Interval = (0.0, 1.0)
NORMAL = NormalRoughness()


def uniform(path: Path, steps: int, *, interval: Interval = ALL) -> Tensor:
    """Return steps of equal length."""
    low, high = _checked(steps, interval)
    return _with_ends((low + (high - low) * _shares(steps))[1:-1], interval)


def power(path: Path, steps: int, *, exponent: float = 1.5, interval: Interval = ALL) -> Tensor:
    r"""Return steps that shrink towards the data, as $1 - a = (1 - i / \mathrm{steps})^p$ does for the exponent p > 1.

    The clock $a = \alpha/(\alpha+\sigma)$ is t on the straight path, and on others the time at which that is as noisy:
    the grid visits the same noise levels on all.

    Raises:
        ValueError: an exponent that is not positive.
    """
    if not 0 < exponent < math.inf:
        raise ValueError(f"exponent must be positive, got {exponent}")
    _checked(steps, interval)
    ends = torch.sigmoid(-log_snr(path, _ends(interval))) ** (1 / exponent)
    rest = _lerp(ends[0], ends[1], _shares(steps))[1:-1] ** exponent  # 1 - a
    inner = time_at(path, -torch.logit(rest))
    return _with_ends(inner, interval)


def shifted(path: Path, steps: int, *, shift: float = 3.0, interval: Interval = ALL) -> Tensor:
    """Return t = q / (q + shift (1 - q)) at equally spaced q: more steps at the noise for shift > 1.

    Large images lose their noise later: sqrt(dimensions / reference) for the shift (Esser et al., arXiv 2403.03206,
    eq. 23, whose time runs the other way).

    Raises:
        ValueError: a shift that is not positive.
    """
    if not 0 < shift < math.inf:
        raise ValueError(f"shift must be positive, got {shift}")
    low, high = _checked(steps, interval)
    low, high = (shift * end / (1 + (shift - 1) * end) for end in (low, high))
    q = (low + (high - low) * _shares(steps))[1:-1]
    return _with_ends(q / (q + shift * (1 - q)), interval)


def uniform_log_snr(path: Path, steps: int, *, limit: float = 3.0, interval: Interval = ALL) -> Tensor:
    """Return times at equal distances of log(alpha / sigma), up to its values at the ends or to -+ `limit`.

    The first and last step lead from and to the ends themselves where they are beyond the limit (DPM-Solver,
    arXiv 2206.00927, sec. 4.3, has no such steps and stays inside).

    Raises:
        ValueError: a limit that is not positive, or an interval that lies beyond it.
    """
    _checked(steps, interval)
    first, last = log_snr(path, _ends(interval)).tolist()
    low, high = max(first, -limit), min(last, limit)
    if not (0 < limit < math.inf and low < high):
        raise ValueError(
            f"limit must be positive and leave a part of log(alpha / sigma) {first} to {last}, got {limit}"
        )
    begins, ends = int(first < low), int(last > high)
    inner = steps - begins - ends
    if inner < 1:
        return uniform(path, steps, interval=interval)
    times = time_at(path, low + (high - low) * _shares(inner))
    return _with_ends(times[1 - begins : len(times) - 1 + ends], interval)


def timesteps(path: Path, steps: int, *, count: int = 1000, interval: Interval = ALL) -> Tensor:
    """Return the times of `steps` of the `count` timesteps of DDPM's chain, and then that of the data.

    They are evenly spread from the first to the last and rounded to whole ones, as DiT's are; timestep k is the time
    1 - (k + 1) / count. Within an interval it is all scaled.

    Raises:
        ValueError: more steps than there are timesteps.
    """
    low, high = _checked(steps, interval)
    if steps > count:
        raise ValueError(f"there are {count} timesteps, got steps = {steps}")
    rounded = torch.linspace(0, count - 1, steps, dtype=torch.float64, device="cpu").round().flip(0)
    return _with_ends(low + (high - low) * (1 - (rounded[1:] + 1) / count), interval)


def fitted(
    path: Path, steps: int, *, roughness: Roughness = NORMAL, interval: Interval = ALL, mesh: int = 4096
) -> Tensor:
    r"""Return steps that share equally the error of `Exponential` of order 3, by an estimate that asks no network.

    By its variable $u = \alpha/\sqrt{\alpha^2+\sigma^2}$, a step of length h misses the data by $|D'''|h^3$ times the
    mass $h\,dm/du$; and of data of variance 1, to whose scale an error at u is carried, $dm/du = 1/(1-u^2)$. Steps
    share the error if there are $(|D'''|/(1-u^2))^{1/4}$ of them a unit of u.

    Args:
        path: where the times are.
        steps: how many.
        roughness: |D'''| as a function of u in (0, 1), by default that of normal data of all scales.
        interval: the ends.
        mesh: how finely the density of steps is integrated.

    Raises:
        ValueError: a roughness that is negative, not finite or 0 everywhere.
    """
    _checked(steps, interval)
    ends = _angles(path, _ends(interval))
    edges = _lerp(ends[0], ends[1], _shares(mesh))  # u is their sine
    middles = (edges[:-1] + edges[1:]) / 2
    rough = roughness(middles.sin())
    if not ((rough >= 0) & rough.isfinite()).all() or not rough.any():
        raise ValueError("the roughness must be finite and at least 0, and not 0 everywhere")
    return _share_equally(path, edges, (rough / middles.cos() ** 2) ** 0.25 * middles.cos(), steps, interval)


def measured(
    path: Path, steps: int, *, velocity: Field, x: Tensor, interval: Interval = ALL, rounds: int = 4
) -> Tensor:
    r"""Return steps that share equally the error of `Exponential` of order 3, as measured on a network and states x.

    What the corrector adds to a state, over $\sqrt{\alpha^2+\sigma^2}$ and as a root mean square, is the estimate of a
    step's error, which falls as the fourth power of its length (Milne's device). From `fitted` on, each round solves
    the ODE once and moves the times halfway to where the estimates would be equal.

    Args:
        path: where the times are.
        steps: how many; two at least have something to share.
        velocity: a velocity along `path`, asked rounds * steps times.
        x: states at the first time, (B, *): noise. A few dozen will do.
        interval: the ends.
        rounds: how often to measure.

    Raises:
        ValueError: no states, or a velocity that is not finite.
    """
    if not x.numel():
        raise ValueError(f"measuring asks the velocity at some states, got x of shape {tuple(x.shape)}")
    times = fitted(path, steps, interval=interval)
    for _ in range(rounds if steps > 1 else 0):
        asked, reached = _trace(velocity, path, x, times)
        errors = torch.stack([torch.mean((b - a).square()).sqrt() for a, b in zip(asked[1:], reached, strict=True)])
        sizes = (path.alpha(times) ** 2 + path.sigma(times) ** 2).sqrt()[1:-1]
        estimates = errors.double().cpu() / sizes
        if not estimates.isfinite().all():
            raise ValueError(
                "the states are not finite with this velocity: errors of the steps are "
                f"{[float(f'{e:.3g}') for e in estimates.tolist()]}"
            )
        estimates = torch.cat([estimates, estimates[-1:]])  # the last step is not corrected
        edges = _angles(path, times)
        density = estimates.clamp(min=1e-12 + 1e-3 * float(estimates.max())) ** 0.25 / edges.diff()
        times = (times + _share_equally(path, edges, density, steps, interval)) / 2
    return times


@torch.no_grad()
def _trace(velocity: Field, path: Path, x: Tensor, times: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return the states at which the velocity was asked, and what the corrector made of all but the first."""
    asked: list[Tensor] = []
    dtype = x.dtype

    def field(x: Tensor, t: Tensor) -> Tensor:
        asked.append(x)
        return velocity(x.to(dtype), t)

    x = x.to(wide(x.dtype))
    states = list(Exponential(field, path)(x, times))
    return asked, states[1:-1]


def _angles(path: Path, times: Tensor) -> Tensor:
    """Return atan(alpha / sigma): from 0 at the noise to pi / 2 at the data."""
    return torch.atan(torch.exp(log_snr(path, times)))


def _share_equally(path: Path, edges: Tensor, density: Tensor, steps: int, interval: Interval) -> Tensor:
    """Return times between whose angles lie equal shares of a density (M,) that is constant between edges (M + 1,)."""
    shares = torch.cat([density.new_zeros(1), (density * edges.diff()).cumsum(0)])
    wanted = _shares(steps)[1:-1] * shares[-1]
    right = torch.searchsorted(shares, wanted).clamp(1, len(density))
    part = (wanted - shares[right - 1]) / (shares[right] - shares[right - 1])
    inner = time_at(path, torch.log(torch.tan(_lerp(edges[right - 1], edges[right], part))))
    return _with_ends(inner, interval)


def _lerp(low: Tensor, high: Tensor, part: Tensor) -> Tensor:
    return low + part * (high - low)


def _shares(steps: int) -> Tensor:
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64, device="cpu")


def _ends(interval: Interval) -> Tensor:
    return torch.tensor(interval, dtype=torch.float64, device="cpu")


def _checked(steps: int, interval: Interval) -> Interval:
    if not isinstance(steps, Integral) or steps < 1 or not 0 <= interval[0] < interval[1] <= 1:
        raise ValueError(f"give whole steps >= 1 and an interval 0 <= low < high <= 1, got {steps} and {interval}")
    return interval


def _with_ends(inner: Tensor, interval: Interval) -> Tensor:
    """Return the inner times between the exact ends, which no rounding moves.

    Raises:
        ValueError: times that do not rise.
    """
    ends = inner.new_tensor(interval)
    times = torch.cat([ends[:1], inner, ends[1:]])
    if not (times.diff() > 0).all():
        n = int((times.diff() > 0).logical_not().nonzero()[0])
        raise ValueError(
            f"times {n} and {n + 1} of {len(times) - 1} steps are both {float(times[n]):.17g} in float64: take fewer "
            "steps, or a grid whose steps shrink less"
        )
    return times
