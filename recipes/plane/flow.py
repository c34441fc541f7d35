"""2D trajectories from noise to data, by the ODE and by the SDE."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sitkit.interpolants import Linear
from sitkit.samplers import SDE, EulerMaruyama, Field, Heun, Keyed, Mean, Sigma


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Trajectories of points from noise to data: states (T, N, 2) at times (T,)."""

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
    path = Linear()
    sde = SDE(velocity, path, Sigma(path))
    times = torch.linspace(0, 1, steps + 1)
    states = [*EulerMaruyama(sde, Keyed(seed, torch.arange(len(noise))))(noise, times[:-1])]
    states.append(Mean(sde).step(states[-1], times[-2], times[-1]))
    return Trajectories(times, torch.stack(states))
