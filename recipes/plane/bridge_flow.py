"""2D trajectories between two distributions, in both directions, by the ODE and the SDEs of a two-sided path."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sitkit.interpolants import Bridge, QuadraticBridge, SineBridge, TwoSided
from sitkit.objectives import usable_times
from sitkit.samplers import (
    SDE,
    Diffusion,
    Field,
    Heun,
    Keyed,
    Mean,
    ScoredField,
    SineSquared,
    StochasticHeun,
    trajectory,
)

from .flow import Trajectories

BRIDGES: dict[str, tuple[TwoSided, str]] = {
    "sine": (SineBridge(), "γ(t) = ½ sin²(πt)"),
    "quadratic": (QuadraticBridge(), "γ(t) = t (1 − t)"),
    "brownian": (Bridge(), "γ(t) = √(t (1 − t))"),
}
"""Two-sided paths and the formulae of their gamma, by name."""

BRIDGE_DIFFUSIONS: dict[str, tuple[Diffusion, str]] = {
    "½ SineSquared": (SineSquared(0.5), "w(t) = ½ sin²(πt)"),
    "SineSquared": (SineSquared(), "w(t) = sin²(πt)"),
    "2 SineSquared": (SineSquared(2.0), "w(t) = 2 sin²(πt)"),
    "4 SineSquared": (SineSquared(4.0), "w(t) = 4 sin²(πt)"),
}
"""Diffusion coefficients and their formulae, by name: equal at t and 1 - t, and 0 where the score is infinite."""


@dataclass(frozen=True, eq=False)
class BridgeField:
    """Velocity and score of a two-sided path, as a function of (x, t). `velocity` is its first result.

    Args:
        velocity: the velocity field.
        scored: the function that returns velocity and score.
        bridge: the path.
    """

    velocity: Field
    scored: ScoredField
    bridge: TwoSided

    def __call__(self, x: Tensor, t: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return velocity and score."""
        return self.scored(x, t)

    def reversed(self) -> "BridgeField":
        """Return the field of the process in the time u = 1 - t: velocity -b and score s at 1 - u.

        The reversal of dX = (b + w/2 s) dt + sqrt(w) dW is dY = (-b + w/2 s) du + sqrt(w) dW, an SDE of the same form.
        """

        def velocity(x: Tensor, u: Tensor) -> Tensor:
            return -self.velocity(x, 1 - u)

        def scored(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
            b, score = self.scored(x, 1 - u)
            return -b, score

        return BridgeField(velocity, scored, self.bridge)


@torch.no_grad()
def flow_between(
    field: BridgeField, start: Tensor, w: Diffusion | None, seed: int, steps: int, *, backward: bool
) -> Trajectories:
    """Solve the SDE of w, or the ODE for None, from points (N, 2) of the source, or of the data if `backward`.

    The times are sin(pi k / (2 steps))^2: gamma of every bridge is smooth in k, also where gamma_dot is infinite.
    Heun's methods keep the width of thin data within 2 % on 80 steps. The last step of an SDE has no noise.
    """
    low, high = usable_times(field.bridge)
    times = torch.sin(math.pi / 2 * torch.linspace(0, 1, steps + 1, dtype=torch.float64)).square().clamp(low, high)
    run = field.reversed() if backward else field
    if w is None:
        states = trajectory(Heun(run.velocity), start, times)
    else:
        sde = SDE.of(run, w)
        solver = StochasticHeun(sde, Keyed(seed, torch.arange(len(start))))
        states = trajectory(solver, start, times, last=Mean(sde))
    return Trajectories(1 - times if backward else times, torch.stack(states))
