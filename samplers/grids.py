"""Time grids from noise to data: functions (path, steps) that return float64 times, (steps + 1,), on the CPU.

Bind further arguments by `functools.partial(power, exponent=2.0)`. All grids contain the ends of `interval` exactly,
and raise ValueError if two times would round to the same float64. `through` moves times of any grid onto the jumps of a
field.
"""

import math
from numbers import Integral

import torch
from torch import Tensor

from .exponential import Exponential
from .jumps import snap_to_jumps
from .log_snr import log_snr, time_from_log_snr
from .protocols import Field, Path
from .roughness import NormalRoughness, Roughness
from .states import upcast

Interval = tuple[float, float]
ALL: Interval = (0.0, 1.0)
NORMAL = NormalRoughness()
through = snap_to_jumps


def uniform(path: Path, steps: int, *, interval: Interval = ALL) -> Tensor:
    """Return times with steps of equal length."""
    low, high = _check_arguments(steps, interval)
    return _with_ends((low + (high - low) * _fractions(steps))[1:-1], interval)


def power(path: Path, steps: int, *, exponent: float = 1.5, interval: Interval = ALL) -> Tensor:
    r"""Return times with $1 - a = (1 - i / \mathrm{steps})^p$. For exponents p > 1, steps shrink towards the data.

    Here $a = \alpha/(\alpha+\sigma)$, which is t on the linear path. On other paths, the grid has the same noise
    levels.

    Raises:
        ValueError: `exponent` is not positive.
    """
    if not 0 < exponent < math.inf:
        raise ValueError(f"exponent must be positive, got {exponent}")
    _check_arguments(steps, interval)
    ends = torch.sigmoid(-log_snr(path, _ends(interval))) ** (1 / exponent)
    rest = _lerp(ends[0], ends[1], _fractions(steps))[1:-1] ** exponent  # 1 - a
    inner = time_from_log_snr(path, -torch.logit(rest))
    return _with_ends(inner, interval)


def shifted(path: Path, steps: int, *, shift: float = 3.0, interval: Interval = ALL) -> Tensor:
    """Return t = q / (q + shift (1 - q)) at equally spaced q. A shift above 1 moves times towards the noise.

    For large images, use shift = sqrt(dimensions / reference dimensions) (SD3, arXiv 2403.03206, eq. 23, whose time
    runs from data to noise).

    Raises:
        ValueError: `shift` is not positive.
    """
    if not 0 < shift < math.inf:
        raise ValueError(f"shift must be positive, got {shift}")
    low, high = _check_arguments(steps, interval)
    low, high = (shift * end / (1 + (shift - 1) * end) for end in (low, high))
    q = (low + (high - low) * _fractions(steps))[1:-1]
    return _with_ends(q / (q + shift * (1 - q)), interval)


def uniform_log_snr(path: Path, steps: int, *, limit: float = 3.0, interval: Interval = ALL) -> Tensor:
    """Return times at equal distances of log(alpha / sigma), restricted to [-limit, limit].

    If an end of the interval is outside of the limits, the first or last step goes from or to this end (in DPM-Solver,
    arXiv 2206.00927, sec. 4.3, the grid ends at the limits).

    Raises:
        ValueError: `limit` is not positive, or the interval is outside of the limits.
    """
    _check_arguments(steps, interval)
    first, last = log_snr(path, _ends(interval)).tolist()
    low, high = max(first, -limit), min(last, limit)
    if not (0 < limit < math.inf and low < high):
        raise ValueError(
            f"limit must be positive, and [-limit, limit] must overlap log(alpha / sigma), {first} to {last}; "
            f"got {limit}"
        )
    cut_start, cut_end = int(first < low), int(last > high)
    inner = steps - cut_start - cut_end
    if inner < 1:
        return uniform(path, steps, interval=interval)
    times = time_from_log_snr(path, low + (high - low) * _fractions(inner))
    return _with_ends(times[1 - cut_start : len(times) - 1 + cut_end], interval)


def timesteps(path: Path, steps: int, *, count: int = 1000, interval: Interval = ALL) -> Tensor:
    """Return the times of `steps` of the `count` timesteps of DDPM's chain, followed by the time of the data.

    Timesteps are evenly spaced from the first to the last and rounded, as in DiT. Timestep k is the time
    1 - (k + 1) / count. The times are scaled to `interval`.

    Raises:
        ValueError: `steps` exceeds `count`.
    """
    low, high = _check_arguments(steps, interval)
    if steps > count:
        raise ValueError(f"there are {count} timesteps, got steps = {steps}")
    rounded = torch.linspace(0, count - 1, steps, dtype=torch.float64, device="cpu").round().flip(0)
    return _with_ends(low + (high - low) * (1 - (rounded[1:] + 1) / count), interval)


def fitted(
    path: Path, steps: int, *, roughness: Roughness = NORMAL, interval: Interval = ALL, mesh: int = 4096
) -> Tensor:
    r"""Return times at which all steps of `Exponential` of order 3 have the same estimated error, without a network.

    In the variable $u = \alpha/\sqrt{\alpha^2+\sigma^2}$, the error of a step of length h is $|D'''|h^3$ times
    $h\,dm/du$. On the scale of data of variance 1, $dm/du = 1/(1-u^2)$. All steps have the same error if the density of
    times in u is proportional to $(|D'''|/(1-u^2))^{1/4}$.

    Args:
        path: the path.
        steps: the number of steps.
        roughness: |D'''| as a function of u in (0, 1). Default: that of normal data of many scales.
        interval: the first and the last time.
        mesh: the number of cells in which the density is integrated.

    Raises:
        ValueError: `roughness` is negative, not finite, or 0 everywhere.
    """
    _check_arguments(steps, interval)
    ends = _angles(path, _ends(interval))
    edges = _lerp(ends[0], ends[1], _fractions(mesh))  # angles, of which u is the sine
    middles = (edges[:-1] + edges[1:]) / 2
    rough = roughness(middles.sin())
    if not ((rough >= 0) & rough.isfinite()).all() or not rough.any():
        raise ValueError("the roughness must be finite and at least 0, and not 0 everywhere")
    return _equidistribute(path, edges, (rough / middles.cos() ** 2) ** 0.25 * middles.cos(), steps, interval)


def measured(
    path: Path, steps: int, *, velocity: Field, x: Tensor, interval: Interval = ALL, rounds: int = 4
) -> Tensor:
    r"""Return times at which all steps of `Exponential` of order 3 have the same error, measured on a velocity field.

    The error of a step is estimated by the root mean square of the corrector's change of the state, divided by
    $\sqrt{\alpha^2+\sigma^2}$ (Milne's device). It is of order 4 in the length of the step. Starting from `fitted`,
    each round solves the ODE once and moves the times halfway to those that would have equal estimates. NFE:
    rounds * steps. No gradients are recorded.

    Args:
        path: the path.
        steps: the number of steps.
        velocity: the velocity field along `path`.
        x: states at the first time, (B, *), usually noise. A few dozen suffice.
        interval: the first and the last time.
        rounds: the number of rounds.

    Raises:
        ValueError: x is empty, or the velocity is not finite.
    """
    if not x.numel():
        raise ValueError(f"measuring the error needs at least one state, got x of shape {tuple(x.shape)}")
    times = fitted(path, steps, interval=interval)
    for _ in range(rounds if steps > 1 else 0):
        predicted, corrected = _solve(velocity, path, x, times)
        pairs = zip(predicted[1:], corrected, strict=True)
        errors = torch.stack([torch.mean((b - a).square()).sqrt() for a, b in pairs])
        sizes = (path.alpha(times) ** 2 + path.sigma(times) ** 2).sqrt()[1:-1]
        estimates = errors.double().cpu() / sizes
        if not estimates.isfinite().all():
            raise ValueError(
                "the states are not finite with this velocity: the errors of the steps are "
                f"{[float(f'{e:.3g}') for e in estimates.tolist()]}"
            )
        estimates = torch.cat([estimates, estimates[-1:]])  # the last step is not corrected
        edges = _angles(path, times)
        density = estimates.clamp(min=1e-12 + 1e-3 * float(estimates.max())) ** 0.25 / edges.diff()
        times = (times + _equidistribute(path, edges, density, steps, interval)) / 2
    return times


@torch.no_grad()
def _solve(velocity: Field, path: Path, x: Tensor, times: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return the states before correction, including the first, and the corrected states at the inner times."""
    predicted: list[Tensor] = []
    dtype = x.dtype

    def field(x: Tensor, t: Tensor) -> Tensor:
        predicted.append(x)
        return velocity(x.to(dtype), t)

    states = list(Exponential(field, path)(upcast(x), times))
    return predicted, states[1:-1]


def _angles(path: Path, times: Tensor) -> Tensor:
    """Return atan(alpha / sigma): from 0 at the noise to pi / 2 at the data."""
    return torch.atan(torch.exp(log_snr(path, times)))


def _equidistribute(path: Path, edges: Tensor, density: Tensor, steps: int, interval: Interval) -> Tensor:
    """Return times between which the integrals of a density are equal.

    The density, (M,), is a function of the angle and constant between consecutive edges, (M + 1,).
    """
    integrals = torch.cat([density.new_zeros(1), (density * edges.diff()).cumsum(0)])
    targets = _fractions(steps)[1:-1] * integrals[-1]
    right = torch.searchsorted(integrals, targets).clamp(1, len(density))
    part = (targets - integrals[right - 1]) / (integrals[right] - integrals[right - 1])
    inner = time_from_log_snr(path, torch.log(torch.tan(_lerp(edges[right - 1], edges[right], part))))
    return _with_ends(inner, interval)


def _lerp(low: Tensor, high: Tensor, part: Tensor) -> Tensor:
    return low + part * (high - low)


def _fractions(steps: int) -> Tensor:
    """Return 0, 1 / steps, ..., 1."""
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64, device="cpu")


def _ends(interval: Interval) -> Tensor:
    return torch.tensor(interval, dtype=torch.float64, device="cpu")


def _check_arguments(steps: int, interval: Interval) -> Interval:
    if not isinstance(steps, Integral) or steps < 1 or not 0 <= interval[0] < interval[1] <= 1:
        raise ValueError(f"give whole steps >= 1 and an interval 0 <= low < high <= 1, got {steps} and {interval}")
    return interval


def _with_ends(inner: Tensor, interval: Interval) -> Tensor:
    """Return the inner times between the ends of the interval, which are exact.

    Raises:
        ValueError: times do not increase strictly.
    """
    ends = inner.new_tensor(interval)
    times = torch.cat([ends[:1], inner, ends[1:]])
    if not (times.diff() > 0).all():
        n = int((times.diff() > 0).logical_not().nonzero()[0])
        raise ValueError(
            f"times {n} and {n + 1} of {len(times) - 1} steps are both {float(times[n]):.17g} in float64: use fewer "
            "steps, or a grid whose steps shrink less"
        )
    return times
