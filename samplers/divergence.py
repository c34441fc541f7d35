r"""How the divergence of a velocity is found: by probes p, each of which costs a vector-Jacobian product.

$\nabla\cdot v = \sum_p p^\top J p$ holds exactly for the unit vectors, and in expectation for random vectors whose
covariances add up to the identity (Hutchinson 1990; FFJORD, arXiv 1810.01367).
"""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Protocol

import torch
from torch import Tensor

from . import philox
from .precision import flat, wide
from .protocols import Field


class Divergence(Protocol):
    """A choice of probes."""

    def vectors(self, x: Tensor, /) -> Tensor:
        """Return the probes, (P, B, *), for states x (B, *)."""
        ...


@dataclass(frozen=True)
class Exact:
    """The trace itself: as many probes as the data have dimensions."""

    def vectors(self, x: Tensor, /) -> Tensor:
        """Return the unit vectors, (D, B, *), for states x (B, *) of D numbers each."""
        size = math.prod(x.shape[1:])
        unit = torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, 1, *x.shape[1:])
        return unit.expand(size, *x.shape)


@dataclass(frozen=True, eq=False)
class Hutchinson:
    """An unbiased estimate from vectors of random signs (Rademacher's), functions of (seed, sample number).

    Args:
        probes: how many; the variance of the estimate falls with their number.
        seed: any integer; its low 64 bits count.
        index: the sample numbers of the rows, (B,) int64; 0, 1, 2, ... by default.

    Raises:
        ValueError: no probes.
    """

    probes: int = 1
    seed: int = 0
    index: Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.probes, Integral) or self.probes < 1:
            raise ValueError(f"probes must be a whole number, at least 1, got {self.probes}")

    def vectors(self, x: Tensor, /) -> Tensor:
        """Return the probes, (P, B, *), over the square root of their number.

        Raises:
            ValueError: x has not as many rows as there are sample numbers.
        """
        index = torch.arange(len(x), device=x.device) if self.index is None else self.index
        if len(index) != len(x):
            raise ValueError(f"there are {len(index)} sample numbers, and x has {len(x)} rows")
        keys = [philox.key(self.seed, probe, domain=philox.Domain.PROBES) for probe in range(self.probes)]
        words = torch.stack([philox.words(key, index.to(x.device), math.prod(x.shape[1:])) for key in keys])
        signs = 1 - 2 * (words >> 31).to(x.dtype)
        return signs.reshape(self.probes, *x.shape) / math.sqrt(self.probes)


def with_divergence(velocity: Field, probes: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return velocity (B, *) and divergence (B,), float32 at least, at states x (B, *) and times t (B,).

    It costs one call of the velocity and a vector-Jacobian product for each probe (P, B, *).

    Raises:
        ValueError: the velocity cannot be differentiated by x.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        v = velocity(x, t.clone())
        if not v.requires_grad:
            raise ValueError(
                "the velocity must be differentiable by x: no torch.no_grad or detach in it (to a constant, add 0 * x)"
            )
        divergence = torch.zeros(len(x), dtype=wide(v.dtype), device=v.device)
        for number, probe in enumerate(probes, start=1):
            (product,) = torch.autograd.grad(
                v, x, probe.to(v.dtype), retain_graph=number < len(probes), materialize_grads=True
            )
            divergence = divergence + flat(product * probe).sum(1)
    return v.detach().to(wide(v.dtype)), divergence
