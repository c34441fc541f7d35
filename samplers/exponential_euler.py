r"""The exponential Euler method: the exact step of the SDE of any w, or of the ODE, for a constant data prediction.

`exponential.py` derives it. With D = E[x | x_t] constant over the step,

$$X_s = \Phi X_t + (\alpha_s - \alpha_t\Phi) D + \sigma_s\sqrt{1 - e^{-\int_t^s w/\sigma^2}}\,z, \qquad
\Phi = \frac{\sigma_s}{\sigma_t} e^{-\frac12\int_t^s w/\sigma^2}.$$

A `Window`, or any other w, enters by its integral only, which is split at the jumps of w. For w = `KL` on the same path
the integral is known, $e^{-\frac12\int w/\sigma^2} = (\sigma_s\alpha_t / (\sigma_t\alpha_s))^{scale}$, also where
alpha_t = 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from .diffusion import KL
from .exponential_coefficients import INFINITE_LENGTH, check_first_time
from .jumps import jumps_of, rounding_of_times
from .noise import white
from .one_step import OneStep, at, check_step
from .path_from_noise import check_from_noise
from .protocols import Diffusion, Field, NoiseSource, Path
from .quadrature import NODES, PANELS, diverges, quadrature_nodes
from .sde import check_coefficient, check_diffusion, safe_sqrt
from .states import column, upcast
from .transforms import is_traced
from .transition import Transition, TransitionStep


@dataclass(frozen=True)
class ExponentialEuler(TransitionStep):
    """The exponential Euler method for the SDE of w, or for the ODE if w is None. Order 1, NFE: one per step.

    It is `Exponential` of order 1 without corrector, as a one-step solver with a transition density. It is `DDIM` for
    w = None and `Ancestral` for w = `KL`. Unlike `EulerMaruyama` it is finite for w = `KL` at t = 0, and a step from
    t = 0 to t = 1 has no error if the data prediction is constant.

    Args:
        velocity: a velocity field along `path`.
        path: the path.
        w: the diffusion coefficient, which may be infinite where alpha = 0. None is the ODE, in either direction.
        noise: the noise source. It is not used for the ODE.
    """

    order: ClassVar[int] = 1
    velocity: Field
    path: Path
    w: Diffusion | None = None
    noise: NoiseSource = field(default=white, kw_only=True)

    def __post_init__(self) -> None:
        check_diffusion(self.w)
        check_from_noise(self.path, "ExponentialEuler")

    def __call__(self, x: Tensor, times: Tensor, /) -> Iterator[Tensor]:
        """Yield the state at each of `times`, starting with x itself.

        Raises:
            ValueError: `times` is not a grid (increasing, for an SDE); sigma = 0 at the first time; or w is negative or
                not finite inside a step.
        """
        return OneStep.__call__(self, x, times) if self.w is None else super().__call__(x, times)

    def transition(self, x: Tensor, t: Tensor, s: Tensor, /) -> Transition:
        """Return the distribution of the state at time s. For the ODE, its standard deviation is 0."""
        if self.w is not None:
            t, s = check_step(t, s)
        data = self.path.data_from_velocity(at(self.velocity, x, t), x, t)
        by_state, by_data, std = (column(value, x) for value in step_coefficients(self.path, self.w, t, s))
        return Transition(by_state * upcast(x) + by_data * data, std)

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s."""
        return self.transition(x, t, s).mean if self.w is None else super().step(x, t, s)


def step_coefficients(path: Path, w: Diffusion | None, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the coefficients of state, data prediction and noise of a step, of the times' shape, in float64.

    They are differentiable with respect to times and w.
    """
    t, s = t.double(), s.double()
    if t.device.type == "cpu" and not is_traced(t):
        check_first_time(path, t.detach())
    alpha_t, sigma_t, alpha_s, sigma_s = path.alpha(t), path.sigma(t), path.alpha(s), path.sigma(s)
    decay, lost = (torch.ones_like(t), torch.zeros_like(t)) if w is None else _decay(path, w, t, s)
    by_state = sigma_s / sigma_t * decay
    return by_state, alpha_s - alpha_t * by_state, sigma_s * safe_sqrt(lost)


def _decay(path: Path, w: Diffusion, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Return exp(-1/2 int w / sigma^2) and 1 - exp(-int w / sigma^2), of the times' shape."""
    if type(w) is KL and _equal(w.path, path):
        ratio = path.sigma(s) * path.alpha(t) / (path.sigma(t) * path.alpha(s))
        known = ratio == 0  # the logarithm is infinite there, and so is the derivative of a power below 1
        inside = torch.where(known, 1.0, ratio)
        power = ratio**w.scale if w.scale >= 1 else torch.where(known, float(w.scale == 0), inside**w.scale)
        return power, torch.where(known, float(w.scale > 0), -torch.expm1(2 * w.scale * inside.log()))
    length = _half_integral(path, w, t, s)
    forgets = (path.sigma(s) == 0) & (length > 0)
    return torch.where(forgets, 0.0, torch.exp(-length)), torch.where(forgets, 1.0, -torch.expm1(-2 * length))


def _half_integral(path: Path, w: Diffusion, t: Tensor, s: Tensor) -> Tensor:
    """Return 1/2 int_t^s w / sigma^2, of the times' shape. It is infinite if w is as singular as KL at t = 0.

    The quadrature is over logit(t), which is log(alpha / sigma) on the linear path. The integrand is smooth in it, also
    at both ends. The nodes are fixed fractions of the part of a step between two jumps of w, which gives derivatives by
    t and s.
    """
    middle, edges = ((t + s) / 2).detach(), _split_at_jumps(w, t, s)
    t, s = torch.stack(edges[:-1])[..., None], torch.stack(edges[1:])[..., None]
    is_empty = (t == s).detach()
    start, end = torch.where(is_empty, 0.25, t.detach()), torch.where(is_empty, 0.75, s.detach())
    low, high = torch.logit(start), torch.logit(end)
    # the end of a step with sigma_s = 0 is arbitrary, because the state decays to 0 there
    high = torch.where(path.sigma(end) == 0, low.clamp(min=-INFINITE_LENGTH) + 1, high)
    low = torch.where(low == -torch.inf, high.clamp(max=0) - INFINITE_LENGTH, low)
    high = torch.where(high == torch.inf, low.clamp(min=0) + INFINITE_LENGTH, high)
    flat, shape = (low.flatten(), high.flatten()), (*low.shape[:-1], PANELS * NODES)
    places, weights = (values.reshape(shape) for values in quadrature_nodes(*flat))
    rates = torch.sigmoid(places) * torch.sigmoid(-places)  # derivative of t by logit(t)
    fractions, weights = (torch.sigmoid(places) - start) / (end - start), weights * rates / (end - start)
    nodes = torch.where(is_empty, middle[..., None], t + fractions * (s - t))
    values = check_coefficient(w, nodes.flatten()).reshape(nodes.shape) / (2 * path.sigma(nodes) ** 2)
    infinite = (start[..., 0] == 0) & diverges((values * rates).detach())
    return torch.where(infinite, torch.inf, ((s - t) * weights * values).sum(-1)).sum(0)


def _split_at_jumps(w: Diffusion, t: Tensor, s: Tensor) -> list[Tensor]:
    """Return t, the jumps of w between t and s, and s, each of the times' shape. Other jumps repeat the time before.

    A jump that equals t or s up to the rounding error of float32 counts as t or s.
    """
    edges, rounding = [t], rounding_of_times(torch.float32)
    for jump in sorted(jumps_of(w)):
        edges.append(torch.where((t + rounding < jump) & (jump < s - rounding), jump, edges[-1]))
    return [*edges, s]


def _equal(path: Path, other: Path) -> bool:
    """Return whether two paths are equal. Paths whose fields are tensors may not be comparable."""
    try:
        return path is other or bool(path == other)
    except (RuntimeError, ValueError):
        return False
