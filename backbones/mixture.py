r"""Gaussian mixtures, for which velocity, score, noise and data prediction are known in closed form.

Along a path, a component $N(m, C)$ with $C = U\Lambda U^\top$ has the marginal $N(\alpha m, U S U^\top)$ with
$S = \alpha^2\Lambda + \sigma^2$. Given the state $x_t$, the mean of any quantity $q = a x + b\epsilon$ is

$$E_k[q] = a m + U\frac{a\alpha\Lambda + b\sigma}{S}U^\top(x_t - \alpha m),$$

which does not divide by alpha or sigma. The mean over the components is weighted by their posterior probabilities.
"""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from .exact_fields import check_finite, column, upcast
from .protocols import Field, Path


class Mixture:
    """A mixture of K Gaussians in D dimensions. Its fields map points (B, D) to (B, D).

    Results have the dtype of the points and are computed in float32 at least.

    Args:
        weights: positive weights, (K,). They are normalised.
        means: the means, (K, D).
        covariances: symmetric and positive definite matrices, (K, D, D).

    Raises:
        ValueError: shapes do not match, values are not finite, or weights or covariances are not positive.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor):
        means = torch.as_tensor(means)
        self._dtype = torch.promote_types(means.dtype, torch.float32)
        self.weights, self.means, self.covariances = (
            torch.as_tensor(v).detach().double() for v in (weights, means, covariances)
        )
        if self.means.ndim != 2 or self.covariances.shape != (*self.means.shape, self.means.shape[1]):
            raise ValueError(
                "a mixture has means (K, D) and covariances (K, D, D), "
                f"got {tuple(self.means.shape)} and {tuple(self.covariances.shape)}"
            )
        if not self.means.numel():
            raise ValueError(f"a mixture has K >= 1 means of D >= 1 numbers, got {tuple(self.means.shape)}")
        if self.weights.shape != self.means.shape[:1] or not (self.weights > 0).all():
            raise ValueError(f"weights must be positive and of shape ({len(self.means)},), got {self.weights.tolist()}")
        for name in ("weights", "means", "covariances"):
            if not getattr(self, name).isfinite().all():
                raise ValueError(f"{name} must be finite, got {getattr(self, name).tolist()}")
        if not torch.allclose(self.covariances, self.covariances.mT):
            raise ValueError("covariances must be symmetric")
        self.weights = self.weights / self.weights.sum()
        self._variances, self._axes = torch.linalg.eigh(self.covariances)  # (K, D), (K, D, D)
        if not (self._variances > 0).all():
            raise ValueError(f"covariances must be positive definite, got eigenvalues {self._variances.tolist()}")

    @classmethod
    def isotropic(cls, means: Tensor, std: float) -> Self:
        """Return the mixture of N(mean, std^2 I) with equal weights, for means (K, D)."""
        count, size = means.shape
        unit = torch.eye(size, dtype=torch.float64, device=means.device).expand(count, size, size)
        return cls(torch.ones(count, device=means.device), means, std**2 * unit)

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return samples, (count, D), in the dtype of the means, float32 at least."""
        device = self.means.device
        chosen = torch.multinomial(self.weights, max(count, 1), replacement=True, generator=generator)[:count]
        z = torch.randn(count, self.means.shape[1], generator=generator, dtype=torch.float64, device=device)
        deviation = torch.einsum("bij,bj->bi", self._axes[chosen], self._variances[chosen].sqrt() * z)
        return (self.means[chosen] + deviation).to(self._dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density of points (B, D), (B,), in nats and in float32 at least."""
        x = upcast(x)
        one, zero = (
            torch.ones(len(x), dtype=x.dtype, device=x.device),
            torch.zeros(len(x), dtype=x.dtype, device=x.device),
        )
        return torch.logsumexp(self._joint(x, one, zero), dim=1)

    def along(self, path: Path, t: float) -> "Mixture":
        """Return the distribution of the state x_t, which is also a mixture."""
        _check_from_noise(path)
        time = torch.tensor(t, dtype=torch.float64, device=self.means.device)
        alpha, sigma = path.alpha(time), path.sigma(time)
        unit = torch.eye(self.means.shape[1], dtype=torch.float64, device=self.means.device)
        return Mixture(self.weights, alpha * self.means, alpha**2 * self.covariances + sigma**2 * unit)

    def velocity(self, path: Path) -> Field:
        """Return the velocity field E[alpha_dot x + sigma_dot eps | x_t].

        The field raises ValueError where alpha_dot or sigma_dot is infinite, such as at t = 1 on `VP`.
        """
        _check_from_noise(path)
        return self._mean(path, path.alpha_dot, path.sigma_dot)

    def data(self, path: Path) -> Field:
        """Return the field E[x | x_t]."""
        _check_from_noise(path)
        return self._mean(path, torch.ones_like, torch.zeros_like)

    def noise(self, path: Path) -> Field:
        """Return the field E[eps | x_t]."""
        _check_from_noise(path)
        return self._mean(path, torch.zeros_like, torch.ones_like)

    def score(self, path: Path) -> Field:
        """Return the score, the gradient of the log-density of x_t: -E[eps | x_t] / sigma, finite also at sigma = 0."""
        _check_from_noise(path)

        def field(x: Tensor, t: Tensor) -> Tensor:
            dtype, x, t = x.dtype, upcast(x), upcast(t)
            alpha, sigma = path.alpha(t), path.sigma(t)
            residuals, variances = self._residuals(x, alpha), self._marginal_variances(x, alpha, sigma)
            return self._average(x, alpha, sigma, -self._rotate_back(residuals / variances)).to(dtype)

        return field

    def _mean(self, path: Path, a: Callable[[Tensor], Tensor], b: Callable[[Tensor], Tensor]) -> Field:
        """Return the field E[a x + b eps | x_t]."""

        def field(x: Tensor, t: Tensor) -> Tensor:
            dtype, x, t = x.dtype, upcast(x), upcast(t)
            alpha, sigma = path.alpha(t), path.sigma(t)
            check_finite(path, t, lambda t: a(t) + b(t), "alpha_dot or sigma_dot")
            a_t, b_t, alpha_t, sigma_t = (column(v, x) for v in (a(t), b(t), alpha, sigma))
            covariances = a_t * alpha_t * self._variances.to(x) + b_t * sigma_t
            gain = covariances / self._marginal_variances(x, alpha, sigma)
            means = a_t * self.means.to(x) + self._rotate_back(gain * self._residuals(x, alpha))
            return self._average(x, alpha, sigma, means).to(dtype)

        return field

    def _average(self, x: Tensor, alpha: Tensor, sigma: Tensor, values: Tensor) -> Tensor:
        """Return the mean of the components' values (B, K, D), weighted by their posterior probabilities, (B, D)."""
        return torch.sum(self._joint(x, alpha, sigma).softmax(1)[..., None] * values, 1)

    def _joint(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the joint log-density of state and component, (B, K)."""
        variances = self._marginal_variances(x, alpha, sigma)
        squares = self._residuals(x, alpha) ** 2 / variances + torch.log(2 * torch.pi * variances)
        return self.weights.to(x).log() - torch.sum(squares, 2) / 2

    def _residuals(self, x: Tensor, alpha: Tensor) -> Tensor:
        """Return U^T (x_t - alpha m), the residuals in each component's principal axes, (B, K, D)."""
        if x.ndim != 2 or x.shape[1] != self.means.shape[1]:
            raise ValueError(f"this mixture takes x of shape (B, {self.means.shape[1]}), got {tuple(x.shape)}")
        return torch.einsum("kij,bki->bkj", self._axes.to(x), x[:, None] - column(alpha, x) * self.means.to(x))

    def _marginal_variances(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return S, the variances of x_t along the principal axes, (B, K, D)."""
        variances: Tensor = column(alpha, x) ** 2 * self._variances.to(x) + column(sigma, x) ** 2
        return variances

    def _rotate_back(self, values: Tensor) -> Tensor:
        """Return values (B, K, D) in principal axes, rotated to the axes of the data."""
        return torch.einsum("kij,bkj->bki", self._axes.to(values), values)


def _check_from_noise(path: Path) -> None:
    """Raise ValueError if the path is two-sided."""
    if not hasattr(path, "sigma"):
        raise ValueError(f"{path} is a two-sided path: use MixtureBridge(source, data, path)")
