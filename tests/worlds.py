"""Paths for tests, one of them user-written, and data whose fields are known in closed form."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sitkit.backbones import Mixture
from sitkit.interpolants import DDPM, GVP, VP, Bridge, Interpolant, Linear, QuadraticBridge, SineBridge, TwoSided

Field = Callable[[Tensor, Tensor], Tensor]


class Quadratic(Interpolant):
    """A path that leaves the noise slowly; user-written, without derivatives."""

    def alpha(self, t: Tensor) -> Tensor:
        return t**2

    def sigma(self, t: Tensor) -> Tensor:
        return 1 - t**2

    def __repr__(self) -> str:
        return "Quadratic()"


PATHS = (Linear(), GVP(), VP(), DDPM(), Quadratic())
FROM_NOISE = tuple(path for path in PATHS if path.alpha(torch.zeros(())) == 0)
"""Those of which all data are gone at t = 0."""


class Curved(TwoSided):
    """A two-sided path that is not straight, with an infinite gamma_dot at both ends; user-written, no derivatives."""

    def alpha(self, t: Tensor) -> Tensor:
        return t**2

    def beta(self, t: Tensor) -> Tensor:
        return 1 - t**3

    def gamma(self, t: Tensor) -> Tensor:
        return torch.sqrt(t * (1 - t)) * (1 + t)

    def __repr__(self) -> str:
        return "Curved()"


class Noiseless(Curved):
    """Flow matching between two distributions; user-written."""

    def gamma(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def __repr__(self) -> str:
        return "Noiseless()"


BRIDGES = (Bridge(), Bridge(0.3), SineBridge(), QuadraticBridge(2.0), Curved())


@dataclass(frozen=True)
class Gaussian:
    """N(mean, std^2) in one dimension: every marginal along a path, and the flow between them, is known."""

    mean: float
    std: float

    def moments(self, path: Interpolant, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of x_t."""
        return path.alpha(t) * self.mean, torch.sqrt(path.alpha(t) ** 2 * self.std**2 + path.sigma(t) ** 2)

    def velocity(self, path: Interpolant) -> Field:
        """Return the derivatives of mean and deviation, at the state's place among them."""

        def field(x: Tensor, t: Tensor) -> Tensor:
            t = t[:, None]
            mean, std = self.moments(path, t)
            growth = (path.alpha(t) * path.alpha_dot(t) * self.std**2 + path.sigma(t) * path.sigma_dot(t)) / std**2
            return path.alpha_dot(t) * self.mean + growth * (x - mean)

        return field

    def flow(self, path: Interpolant, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Return where the ODE carries x from time t to time s."""
        (mean_t, std_t), (mean_s, std_s) = self.moments(path, t), self.moments(path, s)
        return mean_s + std_s / std_t * (x - mean_t)


RING = Mixture.isotropic(
    torch.tensor(
        [[math.cos(k), math.sin(k)] for k in torch.arange(5).mul(2 * math.pi / 5).tolist()], dtype=torch.float64
    ),
    std=0.3,
)


def random_mixture(components: int, size: int, seed: int) -> Mixture:
    """Return a mixture with full covariances, eigenvalues .05 and more."""
    generator = torch.Generator().manual_seed(seed)
    roots = torch.randn(components, size, size, generator=generator, dtype=torch.float64)
    return Mixture(
        torch.rand(components, generator=generator) + 0.1,
        torch.randn(components, size, generator=generator, dtype=torch.float64),
        roots @ roots.mT * 0.3 / size + 0.05 * torch.eye(size),
    )


def on_images(field: Field) -> Field:
    """Return a field on vectors as a field on images of the same size."""
    return lambda x, t: field(x.flatten(1), t).reshape(x.shape)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def slope(steps: Sequence[float], errors: list[float]) -> float:
    """Return the order at which errors fall with the number of steps, by regression."""
    x = torch.tensor(steps, dtype=torch.float64).log()
    y = torch.tensor(errors, dtype=torch.float64).log()
    x, y = x - x.mean(), y - y.mean()
    return float(-(x * y).sum() / (x * x).sum())


def drawn(count: int, features: int, seed: int, mean: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    """Return features of different standard deviations from a random stream that NumPy guarantees to be stable."""
    draws = np.random.RandomState(seed).standard_normal((count, features))
    return torch.from_numpy(mean + scale * draws * np.linspace(0.5, 1.5, features))
