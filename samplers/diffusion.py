"""Diffusion coefficients w(t), chosen after training (SiT, arXiv 2401.08740, sec. 2.4 and appendix A).

Any function t -> w(t) >= 0 is one; every w keeps the marginals of an exact field, and they differ in how they spread
the errors of a learnt one. The official code's `diffusion` is half of w.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .protocols import Path


@dataclass(frozen=True)
class Constant:
    """w(t) = c. The score's pole at t = 1 is not cancelled: end before, with a last step."""

    c: float = 1.0

    def __post_init__(self) -> None:
        _check_scale("c", self.c)

    def __call__(self, t: Tensor, /) -> Tensor:
        """Return c at every time."""
        return torch.full_like(t, self.c)


@dataclass(frozen=True)
class Sigma:
    """w(t) = scale sigma(t), which cancels the score's pole at t = 1."""

    path: Path
    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_scale("scale", self.scale)

    def __call__(self, t: Tensor, /) -> Tensor:
        """Return scale sigma(t)."""
        return self.scale * self.path.sigma(t)


@dataclass(frozen=True)
class SineSquared:
    """w(t) = scale sin(pi t)^2: no diffusion at either end."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_scale("scale", self.scale)

    def __call__(self, t: Tensor, /) -> Tensor:
        """Return scale sin(pi t)^2."""
        return self.scale * torch.sin(math.pi * t) ** 2


@dataclass(frozen=True)
class RaisedCosine:
    """w(t) = scale (1 + cos(pi t))^2 / 2: from 2 scale at the noise to none at the data."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_scale("scale", self.scale)

    def __call__(self, t: Tensor, /) -> Tensor:
        """Return scale (1 + cos(pi t))^2 / 2."""
        return self.scale * (1 + torch.cos(math.pi * t)) ** 2 / 2


@dataclass(frozen=True)
class KL:
    r"""$w(t) = 2\lambda\sigma$ = 2 sigma (alpha_dot sigma / alpha - sigma_dot), times scale (eq. 13).

    It minimises the bound on the divergence between data and samples, and is beta on `VP`, t = 1 included. Infinite
    where alpha = 0.
    """

    path: Path
    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_scale("scale", self.scale)

    def __call__(self, t: Tensor, /) -> Tensor:
        """Return scale 2 lambda(t) sigma(t)."""
        path, inside = self.path, inside_of_infinite(self.path, t)
        sigma = path.sigma(inside)
        rate = path.alpha_dot(inside) * sigma / path.alpha(inside) - path.sigma_dot(inside)
        return (2 * self.scale * sigma * rate).to(t.dtype)


def inside_of_infinite(path: Path, t: Tensor) -> Tensor:
    """Return the times in float64, but 1e-12 inside of an end at which sigma_dot is infinite.

    There sigma = 0 as well, and 2 lambda sigma is 0 times infinity; its limit is as near as its slope times 1e-12.
    """
    t = t.double()
    inward = torch.where(t > 0.5, -1e-12, 1e-12)
    return torch.where(path.sigma_dot(t).isinf(), t + inward, t)


def _check_scale(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be finite and at least 0, got {value}")
