"""Diffusion coefficients w(t) of the SDE, chosen after training (SiT, arXiv 2401.08740, sec. 2.4 and appendix A).

Any function t -> w(t) >= 0 is valid. With an exact field, every w keeps the marginals. With a learnt field, the choice
of w affects the quality of samples. `diffusion` in the official code is w / 2.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .path_from_noise import DIFFUSIONS, check_from_noise
from .protocols import Path


@dataclass(frozen=True)
class Constant:
    """w(t) = c. The drift is infinite at t = 1, as is the score. End before it, with a last step such as `Mean`."""

    c: float = 1.0

    def __post_init__(self) -> None:
        _check_scale("c", self.c)

    def __call__(self, t: Tensor, /) -> Tensor:
        """Return c at every time."""
        return torch.full_like(t, self.c)


@dataclass(frozen=True)
class Sigma:
    """w(t) = scale sigma(t). The factor sigma cancels the 1 / sigma of the score at t = 1."""

    path: Path
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_from_noise(self.path, "Sigma", DIFFUSIONS)
        _check_scale("scale", self.scale)

    def __call__(self, t: Tensor, /) -> Tensor:
        """Return scale sigma(t)."""
        return self.scale * self.path.sigma(t)


@dataclass(frozen=True)
class SineSquared:
    """w(t) = scale sin(pi t)^2, which is 0 at both ends."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_scale("scale", self.scale)

    def __call__(self, t: Tensor, /) -> Tensor:
        """Return scale sin(pi t)^2."""
        return self.scale * torch.sin(math.pi * t) ** 2


@dataclass(frozen=True)
class RaisedCosine:
    """w(t) = scale (1 + cos(pi t))^2 / 2, which decreases from 2 scale at t = 0 to 0 at t = 1."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_scale("scale", self.scale)

    def __call__(self, t: Tensor, /) -> Tensor:
        """Return scale (1 + cos(pi t))^2 / 2."""
        return self.scale * (1 + torch.cos(math.pi * t)) ** 2 / 2


@dataclass(frozen=True)
class KL:
    r"""$w(t) = 2\lambda\sigma$ = 2 sigma (alpha_dot sigma / alpha - sigma_dot), times scale (eq. 13).

    It minimises the bound on the Kullback-Leibler divergence between data and samples. On `VP` it equals beta, also at
    t = 1. It is infinite where alpha = 0.
    """

    path: Path
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_from_noise(self.path, "KL", DIFFUSIONS)
        _check_scale("scale", self.scale)

    def __call__(self, t: Tensor, /) -> Tensor:
        """Return scale 2 lambda(t) sigma(t)."""
        path, inside = self.path, avoid_infinite_ends(self.path, t)
        sigma = path.sigma(inside)
        rate = path.alpha_dot(inside) * sigma / path.alpha(inside) - path.sigma_dot(inside)
        return (2 * self.scale * sigma * rate).to(t.dtype)


def avoid_infinite_ends(path: Path, t: Tensor) -> Tensor:
    """Return t in float64, moved by 1e-12 into (0, 1) from an end at which sigma_dot is infinite.

    At such an end sigma = 0, and 2 lambda sigma would be 0 times infinity. The shift approximates its finite limit.
    """
    t = t.double()
    inward = torch.where(t > 0.5, -1e-12, 1e-12)
    return torch.where(path.sigma_dot(t).isinf(), t + inward, t)


def _check_scale(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be finite and at least 0, got {value}")
