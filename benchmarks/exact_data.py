"""Data with exact fields, generated from a seed: rings and mixtures in the plane, and mixtures near a subspace."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sitkit.backbones import Mixture
from sitkit.interpolants import Interpolant
from sitkit.samplers import Field


class World(Protocol):
    """A distribution in D dimensions with exact fields."""

    @property
    def size(self) -> int:
        """D."""
        ...

    def velocity(self, path: Interpolant) -> Field:
        """Return the exact field; all rows may share the time of the first."""
        ...

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return samples of the data, (count, D)."""
        ...

    def directions(self) -> Tensor:
        """Return unit vectors (D, P) for projections."""
        ...

    def marginals(self, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights (K,), means (P, K) and standard deviations (P, K) of the data along directions (D, P)."""
        ...


def velocity_at_one_time(mixture: Mixture, path: Interpolant) -> Field:
    """Return the exact velocity of a mixture, faster than `Mixture.velocity`: all rows share the time of the first.

    The log-densities of the components are then quadratic functions of the state, and their means linear ones, so
    that matmuls over all states suffice.
    """
    values, axes = torch.linalg.eigh(mixture.covariances)
    size = mixture.means.shape[1]
    rows, columns = torch.triu_indices(size, size)
    double = torch.where(rows == columns, 1.0, 2.0)

    def field(x: Tensor, t: Tensor) -> Tensor:
        t = t[0].double()
        alpha, sigma, alpha_dot, sigma_dot = (f(t) for f in (path.alpha, path.sigma, path.alpha_dot, path.sigma_dot))
        spread = alpha**2 * values + sigma**2
        gain = (alpha_dot * alpha * values + sigma_dot * sigma) / spread
        inverse, slope = ((axes * part[:, None]) @ axes.mT for part in (1 / spread, gain))
        centre = alpha * mixture.means
        pull = torch.einsum("kij,kj->ki", inverse, centre)
        level = mixture.weights.log() - (spread.log().sum(1) + (pull * centre).sum(1)) / 2
        quadratic = torch.cat([-double * inverse[:, rows, columns] / 2, pull, level[:, None]], 1)
        shift = alpha_dot * mixture.means - torch.einsum("kij,kj->ki", slope, centre)
        features = torch.cat([x[:, rows] * x[:, columns], x, torch.ones_like(x[:, :1])], 1)
        share = torch.softmax(features @ quadratic.T.to(x), 1)
        slopes = (share @ slope.flatten(1).to(x)).reshape(-1, size, size)
        return torch.einsum("bij,bj->bi", slopes, x) + share @ shift.to(x)

    return field


@dataclass(frozen=True, eq=False)
class Plane:
    """A mixture in the plane."""

    mixture: Mixture
    size: int = 2

    def velocity(self, path: Interpolant) -> Field:
        """Return the exact field; all rows share the time of the first."""
        return velocity_at_one_time(self.mixture, path)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return data, (count, 2)."""
        return self.mixture.draw(count, generator)

    def directions(self) -> Tensor:
        """Return 32 directions, evenly spread over a half turn."""
        angles = (torch.arange(32, dtype=torch.float64) + 0.5) * math.pi / 32
        return torch.stack([angles.cos(), angles.sin()])

    def marginals(self, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights, means and standard deviations along directions."""
        return _marginals(self.mixture, directions)


@dataclass(frozen=True, eq=False)
class Manifold:
    """A mixture within a subspace of 4 dimensions, and independent noise of standard deviation `off` across it.

    As the components share what is across, the field there is that of one Gaussian, and the components' field is
    needed in 4 dimensions only.
    """

    mixture: Mixture
    basis: Tensor
    """Orthonormal columns, (D, D); the first 4 span the subspace."""
    off: float

    @property
    def size(self) -> int:
        """The dimension D."""
        return len(self.basis)

    def velocity(self, path: Interpolant) -> Field:
        """Return the exact field; all rows share the time of the first."""
        within = velocity_at_one_time(self.mixture, path)

        def field(x: Tensor, t: Tensor) -> Tensor:
            t, along = t[:1], self.basis[:, :4].to(x)
            alpha, sigma = path.alpha(t), path.sigma(t)
            variance = (alpha * self.off) ** 2 + sigma**2
            rate = (alpha * path.alpha_dot(t) * self.off**2 + sigma * path.sigma_dot(t)) / variance
            z = x @ along
            return rate.to(x) * x + (within(z, t) - rate.to(x) * z) @ along.T

        return field

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return samples of the data, (count, D)."""
        z = self.off * torch.randn(count, self.size, generator=generator, dtype=torch.float64)
        z[:, :4] = self.mixture.draw(count, generator)
        return z @ self.basis.T

    def whole(self) -> Mixture:
        """Return the distribution as a mixture in all dimensions."""
        along = self.basis[:, :4]
        across = torch.eye(self.size, dtype=torch.float64) - along @ along.T
        inside = along @ self.mixture.covariances @ along.T
        return Mixture(self.mixture.weights, self.mixture.means @ along.T, inside + self.off**2 * across)

    def directions(self) -> Tensor:
        """Return 128 directions: 64 anywhere, 32 within the subspace and 32 across it."""
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(self.size, 128, generator=generator, dtype=torch.float64)
        z[4:, 64:96] = 0
        z[:4, 96:] = 0
        directions: Tensor = self.basis @ (z / z.norm(dim=0))
        return directions

    def marginals(self, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights, means and standard deviations along directions."""
        return _marginals(self.whole(), directions)


def _marginals(mixture: Mixture, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    variances = torch.einsum("dp,kde,ep->pk", directions, mixture.covariances, directions)
    return mixture.weights, directions.T @ mixture.means.T, variances.sqrt()


def ring(seed: int) -> Plane:
    """Return 5 to 9 equal Gaussians around the unit circle, of a standard deviation from .05 to .3."""
    generator = _generator("ring", seed)
    count = int(torch.randint(5, 10, (), generator=generator))
    std = 0.05 * 6 ** torch.rand((), generator=generator).item()
    angles = 2 * math.pi * (torch.arange(count, dtype=torch.float64) / count + torch.rand((), generator=generator))
    return Plane(Mixture.isotropic(torch.stack([angles.cos(), angles.sin()], 1), std))


def mixture(seed: int) -> Plane:
    """Return 3 to 6 Gaussians of any weights, places and shapes in the plane."""
    generator = _generator("mixture", seed)
    count = int(torch.randint(3, 7, (), generator=generator))
    return Plane(_mixture(count, 2, 0.05, generator))


def manifold(seed: int) -> Manifold:
    """Return 5 Gaussians of any shape in 4 of 64 dimensions, .01 to .05 thick."""
    generator = _generator("manifold", seed)
    basis, _ = torch.linalg.qr(torch.randn(64, 64, generator=generator, dtype=torch.float64))
    off = 0.01 * 5 ** torch.rand((), generator=generator).item()
    return Manifold(_mixture(5, 4, 0.1, generator), basis, off)


def _mixture(count: int, size: int, least: float, generator: torch.Generator) -> Mixture:
    """Return a mixture whose components have standard deviations of `least` and more."""
    roots = torch.randn(count, size, size, generator=generator, dtype=torch.float64)
    weights = torch.rand(count, generator=generator) + 0.2
    means = torch.randn(count, size, generator=generator, dtype=torch.float64)
    return Mixture(weights, means, roots @ roots.mT * 0.2 / size + least**2 * torch.eye(size))


def _generator(kind: str, seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000 * seed + len(kind))


WORLDS: dict[str, Callable[[int], World]] = {"ring": ring, "mixture": mixture, "manifold": manifold}


def build(name: str) -> World:
    """Return the distribution of a name such as ring-0."""
    kind, _, seed = name.rpartition("-")
    return WORLDS[kind](int(seed))


class SlicedCramerDistance:
    r"""The sliced Cramer distance of samples to the exact distribution.

    The root of the mean, over fixed directions, of $\int (F_N - F)^2$ along each, where F is the law's distribution
    function: of half the energy distance (Szekely and Rizzo, 2013). The square is what an infinite number of samples
    would have, and the noise of N, which adds $\int F(1 - F) / N$ on average, for every distribution.
    """

    bins = 2_048

    def __init__(self, world: World):
        self.directions = world.directions()
        weights, means, stds = world.marginals(self.directions)
        self.low = (means - 8 * stds).amin(1)
        self.width = ((means + 8 * stds).amax(1) - self.low) / self.bins
        edges = self.low[:, None] + self.width[:, None] * torch.arange(1, self.bins + 1, dtype=torch.float64)
        shares = weights * torch.special.ndtr((edges[..., None] - means[:, None]) / stds[:, None])
        self.below = shares.sum(2).numpy()
        self.first = self.bins * np.arange(len(means))

    def __call__(self, samples: Tensor) -> float:
        """Return the distance of samples, (N, D)."""
        along = samples @ self.directions.to(samples)
        if not along.isfinite().all():
            return math.inf
        places = ((along - self.low.to(along)) / self.width.to(along)).clamp(0, self.bins - 1)
        cells = places.numpy().astype(np.int64) + self.first
        counts = np.bincount(cells.ravel(), minlength=self.below.size).reshape(self.below.shape)
        gaps = counts.cumsum(1) / len(samples) - self.below
        return float(np.sqrt(np.mean((gaps**2).sum(1) * self.width.numpy())))

    def floor(self, count: int) -> float:
        """Return the root mean square distance of `count` exact samples."""
        variance = (self.below * (1 - self.below)).sum(1) * self.width.numpy()
        return float(np.sqrt(variance.mean() / count))
