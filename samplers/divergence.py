r"""The divergence of a velocity field, exactly or by Hutchinson's estimator.

$\nabla\cdot v = \sum_p p^\top J p$ is exact if the probes p are the unit vectors. It holds in expectation for random
probes whose covariances add up to the identity (Hutchinson 1990; FFJORD, arXiv 1810.01367). Each probe costs one
vector-Jacobian product.
"""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Protocol

import torch
from torch import Tensor

from . import philox
from .protocols import Field
from .states import flatten_rows, upcast, upcast_dtype


class Divergence(Protocol):
    """A choice of probe vectors."""

    def vectors(self, x: Tensor, /) -> Tensor:
        """Return the probes, (P, B, *), for states x (B, *)."""
        ...


@dataclass(frozen=True)
class Exact:
    """The exact divergence, with one probe per dimension of the data."""

    def vectors(self, x: Tensor, /) -> Tensor:
        """Return the unit vectors, (D, B, *), for states x (B, *) of dimension D."""
        size = math.prod(x.shape[1:])
        unit = torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, 1, *x.shape[1:])
        return unit.expand(size, *x.shape)


@dataclass(frozen=True, eq=False)
class Hutchinson:
    """Hutchinson's unbiased estimator with Rademacher probes, which are functions of (seed, sample number).

    Args:
        probes: the number of probes. The variance of the estimate is proportional to 1 / probes.
        seed: any integer, of which the low 64 bits are used.
        index: the sample numbers of the rows, (B,) int64. Default: 0, 1, 2, ...

    Raises:
        ValueError: `probes` is less than 1.
    """

    probes: int = 1
    seed: int = 0
    index: Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.probes, Integral) or self.probes < 1:
            raise ValueError(f"probes must be a whole number, at least 1, got {self.probes}")

    def vectors(self, x: Tensor, /) -> Tensor:
        """Return the probes, (P, B, *), divided by sqrt(P).

        Raises:
            ValueError: the number of sample numbers differs from the number of rows of x.
        """
        index = torch.arange(len(x), device=x.device) if self.index is None else self.index
        if len(index) != len(x):
            raise ValueError(f"there are {len(index)} sample numbers, and x has {len(x)} rows")
        keys = [philox.key(self.seed, probe, domain=philox.Domain.PROBES) for probe in range(self.probes)]
        words = torch.stack([philox.words(key, index.to(x.device), math.prod(x.shape[1:])) for key in keys])
        signs = 1 - 2 * (words >> 31).to(x.dtype)
        return signs.reshape(self.probes, *x.shape) / math.sqrt(self.probes)


def with_divergence(velocity: Field, probes: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the velocity (B, *) and its divergence (B,), float32 at least, at states x (B, *) and times t (B,).

    NFE: one, plus one vector-Jacobian product for each of the probes (P, B, *).

    Raises:
        ValueError: the velocity is not differentiable by x.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        v = velocity(x, t.clone())
        if not v.requires_grad:
            raise ValueError(
                "the velocity must be differentiable by x: remove torch.no_grad and detach (to a constant, add 0 * x)"
            )
        divergence = torch.zeros(len(x), dtype=upcast_dtype(v.dtype), device=v.device)
        for number, probe in enumerate(probes, start=1):
            (product,) = torch.autograd.grad(
                v, x, probe.to(v.dtype), retain_graph=number < len(probes), materialize_grads=True
            )
            divergence = divergence + flatten_rows(product * probe).sum(1)
    return upcast(v.detach()), divergence
