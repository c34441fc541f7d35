"""Solvers without memory: all that such a solver has to say is one step."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from .protocols import Field


class OneStep(ABC):
    """A solver that goes from each time to the next without looking back; its call is the loop."""

    order: ClassVar[int]
    """The power of the step size by which the error at a fixed time falls; the weak order, where there is noise."""

    @abstractmethod
    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s, of x's shape (B, *), from the state x at time t; both times are scalars."""

    def __call__(self, x: Tensor, times: Tensor, /) -> Iterator[Tensor]:
        """Yield the state at each of `times`, the first being x itself.

        Raises:
            ValueError: `times` is not a grid.
        """
        check_times(times)
        yield x
        for t, s in pairwise(times):
            x = self.step(x, t, s)
            yield x


class StochasticStep(OneStep):
    """A step with noise in it, which leads from noise to data only."""

    def __call__(self, x: Tensor, times: Tensor, /) -> Iterator[Tensor]:
        """Yield the state at each of `times`, the first being x itself.

        Raises:
            ValueError: `times` is not a rising grid, or w is not finite at one of its steps.
        """
        check_rising(times)
        return super().__call__(x, times)


def check_times(times: Tensor) -> None:
    """Raise ValueError unless `times` is a grid: one dimension, floating point, finite, rising or falling."""
    if times.ndim != 1 or not len(times) or not times.is_floating_point():
        raise ValueError(
            f"times must be floating point and of shape (N,), N >= 1, got {times.dtype} {tuple(times.shape)}"
        )
    steps = times.diff()
    if not (torch.isfinite(times).all() and ((steps > 0).all() or (steps < 0).all())):
        raise ValueError(f"times must be finite and strictly rising or falling, got {times.tolist()}")


def check_rising(times: Tensor) -> None:
    """Raise ValueError unless `times` is a rising grid."""
    check_times(times)
    if len(times) > 1 and times[0] > times[1]:
        raise ValueError(f"noise enters on the way from noise to data: times must rise, got {times.tolist()}")


def at(field: Field, x: Tensor, t: Tensor) -> Tensor:
    """Return the field at states x (B, *) and a time for all of them or times (B,); it is given the latter."""
    return field(x, t.to(x.device).expand(len(x)))
