"""Euler and Maruyama's method, the paper's stochastic sampler."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .noise import white
from .one_step import OneStep, check_times
from .protocols import NoiseSource
from .sde import SDE


@dataclass(frozen=True)
class EulerMaruyama(OneStep):
    """x + h drift + sqrt(w h) z: one call of the velocity a step, weak order 1 (SiT, arXiv 2401.08740, algorithm 2)."""

    order: ClassVar[int] = 1
    sde: SDE
    noise: NoiseSource = white

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s > t."""
        drift, w = self.sde(x, t)
        h = s - t
        return x + h * drift + (w * h).sqrt() * self.noise(x, t, s)

    def __call__(self, x: Tensor, times: Tensor, /) -> Iterator[Tensor]:
        """Yield the state at each of `times`.

        Raises:
            ValueError: `times` is not a rising grid, or w is not finite at one of its steps.
        """
        check_times(times)
        if len(times) > 1 and times[0] > times[1]:
            raise ValueError("an SDE runs from noise to data: times must rise")
        return super().__call__(x, times)
