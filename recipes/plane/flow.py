"""2D trajectories from noise to data, by the ODE and by the SDE."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sitkit.interpolants import Linear
from sitkit.samplers import (
    KL,
    SDE,
    Constant,
    Diffusion,
    EulerMaruyama,
    Exponential,
    Field,
    Heun,
    Keyed,
    Mean,
    RaisedCosine,
    Sigma,
    SineSquared,
    Window,
    trajectory,
)

PATH = Linear()
DIFFUSIONS: dict[str, tuple[Diffusion, str]] = {
    "½ Sigma": (Sigma(PATH, 0.5), "w(t) = ½ (1 − t)"),
    "Sigma": (Sigma(PATH), "w(t) = 1 − t"),
    "2 Sigma": (Sigma(PATH, 2.0), "w(t) = 2 (1 − t)"),
    "KL": (KL(PATH), "w(t) = 2 (1 − t) / t"),
    "SineSquared": (SineSquared(), "w(t) = sin²(πt)"),
    "RaisedCosine": (RaisedCosine(), "w(t) = ½ (1 + cos πt)²"),
    "Constant": (Window(Constant(), (0, 0.95)), "w(t) = 1 up to t = 0.95, then 0"),
}
"""Diffusion coefficients and their formulae on the linear path, by name.

The drift of a constant w is infinite at t = 1: the ODE replaces the SDE from t = 0.95.
"""


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Trajectories of points: states (T, N, 2) at times (T,)."""

    times: Tensor
    states: Tensor


@torch.no_grad()
def flow_by_ode(velocity: Field, noise: Tensor, steps: int = 50) -> Trajectories:
    """Solve the ODE from noise (N, 2) by Heun's method."""
    times = torch.linspace(0, 1, steps + 1)
    return Trajectories(times, torch.stack([*Heun(velocity)(noise, times)]))


@torch.no_grad()
def flow_by_sde(velocity: Field, noise: Tensor, seed: int, steps: int = 200) -> Trajectories:
    """Solve the SDE with w = sigma from noise (N, 2) by Euler-Maruyama and a noiseless last step."""
    sde = SDE(velocity, PATH, Sigma(PATH))
    times = torch.linspace(0, 1, steps + 1)
    solver = EulerMaruyama(sde, Keyed(seed, torch.arange(len(noise))))
    return Trajectories(times, torch.stack(trajectory(solver, noise, times, last=Mean(sde))))


@torch.no_grad()
def flow_by_exponential(velocity: Field, noise: Tensor, w: Diffusion | None, seed: int, steps: int) -> Trajectories:
    """Solve the SDE of w, or the ODE for None, from noise (N, 2) by the exponential method of order 2.

    It is accurate for every w of `DIFFUSIONS`, also for KL, which is infinite at t = 0. On uniform times, 80 steps keep
    the width of data as thin as the moons' within 1 %, which methods of order 1 make thinner by a tenth.
    """
    times = torch.linspace(0, 1, steps + 1)
    solver = Exponential(velocity, PATH, w, order=2, noise=Keyed(seed, torch.arange(len(noise))))
    return Trajectories(times, torch.stack(trajectory(solver, noise, times)))
