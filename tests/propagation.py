"""Exact mean and variance of Gaussians under chains of stochastic steps."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sitkit.samplers import NoiseSource, OneStep
from worlds import doubles


def propagate(
    solver_of_noise: Callable[[NoiseSource], OneStep], times: Tensor, mean: Tensor, variance: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Carry a Gaussian through a chain of steps that are affine in state and noise, exactly.

    The coefficients of all steps come from one call under `vmap`.
    """
    states, noises = doubles(0, 1, 0)[:, None], doubles(0, 0, 1)[:, None]
    solver = solver_of_noise(lambda x, t, s: noises)
    steps = torch.func.vmap(lambda t, s: solver.step(states, t, s))(times[:-1], times[1:])[..., 0]
    torch.testing.assert_close(steps[-1], solver.step(states, times[-2], times[-1])[:, 0])
    for still, by_state, by_noise in steps:
        mean = still + (by_state - still) * mean
        variance = (by_state - still) ** 2 * variance + (by_noise - still) ** 2
        yield mean, variance
