r"""The density that an ODE gives to data, by the instantaneous change of variables.

Along dx/dt = v the log-density of a state changes by $-\nabla\cdot v$ (Chen et al., arXiv 1806.07366). So log p(x) is
log N(z) minus the integral of the divergence over [0, 1], for the latent z that x flows to from t = 1 to t = 0.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .adaptive import Control, solve, worst_row
from .divergence import Divergence, Exact, with_divergence
from .precision import check_states, flat, wide
from .protocols import Field

SHARE = 0.05
"""How much of an error of the log-density, per dimension, counts as one of the state.

The divergence wavers more than the velocity. Counted in full it made a third more steps, for an error that was the same
but for data of one or two numbers; not counted at all, the log-density of a sample that stands still would be anything.
"""


class Likelihood(NamedTuple):
    """Log-densities of data, and the noise that they flow to."""

    log_prob: Tensor
    """(B,), in nats."""
    latent: Tensor
    """(B, *)."""


def standard_normal(z: Tensor) -> Tensor:
    """Return log N(z; 0, I), (B,), for z (B, *)."""
    z = flat(z)
    return -z.square().sum(1) / 2 - z.shape[1] / 2 * math.log(2 * math.pi)


def log_likelihood(
    velocity: Field,
    x: Tensor,
    *,
    interval: tuple[float, float] = (1.0, 0.0),
    divergence: Divergence = Exact(),  # noqa: B008 (it is a value)
    rtol: float = 1e-5,
    atol: float = 1e-6,
    method: str = "dopri5",
    prior: Callable[[Tensor], Tensor] = standard_normal,
    max_steps: int = 10_000,
) -> Likelihood:
    """Return log p(x), float32 at least, under the ODE of a velocity, and the latents of x; no gradients are kept.

    One call of the velocity, and a vector-Jacobian product for each probe, a right-hand side. The probes are drawn
    once: the right-hand side is smooth, and the steps are about as many as without the divergence. It works whether or
    not gradients are enabled where it is called. Where the velocity says that it jumps (`jumps`), a step ends.

    Args:
        velocity: differentiable by the state.
        x: data, (B, *), of any shape.
        interval: from the data's time to the noise's. End inside (0, 1) where the velocity is infinite at an end.
        divergence: `Exact()`, or `Hutchinson(probes, seed)`, whose log-densities have the right expectation.
        rtol: the error allowed of a step, relative to the state; of the log-density per dimension, 20 times as much.
        atol: the same, absolute.
        method: the name of one of torchdiffeq's.
        prior: the log-density of the latents. A path whose alpha is not 0 at the interval's end leaves some of the data
            in them, and the standard normal is then an approximation.
        max_steps: how many steps may be taken, from each jump of the velocity to the next.

    Raises:
        ValueError: the velocity cannot be differentiated, or the solution cannot be followed to the interval's end in
            so many steps.
    """
    check_states(x)
    given = x.dtype
    x = x.detach().to(wide(given))
    probes = divergence.vectors(x)
    size = math.prod(x.shape[1:])

    def right_side(t: Tensor, state: Tensor) -> Tensor:
        times = t.to(state.device).expand(len(state))
        v, change = with_divergence(velocity, probes, state[:, :size].reshape(x.shape).to(given), times)
        return torch.cat([flat(v), change[:, None] / size], dim=1).to(state.dtype)

    def norm(errors: Tensor) -> Tensor:
        return torch.maximum(worst_row(errors[:, :size]), SHARE * errors[:, size].abs().amax())

    with torch.no_grad():
        start = torch.cat([flat(x), x.new_zeros(len(x), 1)], dim=1)
        end = solve(right_side, velocity, start, *interval, Control(method, rtol, atol, 100, max_steps), norm)
        latent = end[:, :size].reshape(x.shape)
        return Likelihood(prior(latent) + end[:, size] * size, latent.to(given))
