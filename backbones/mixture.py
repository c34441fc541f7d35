r"""Data whose every field is known: Gaussian mixtures.

Along a path a component $N(m, C)$ with $C = U\Lambda U^\top$ has the marginal $N(\alpha m, U S U^\top)$,
$S = \alpha^2\Lambda + \sigma^2$, and given its state $x_t$ any quantity $q = a x + b\epsilon$ has the mean

$$E_k[q] = a m + U\frac{a\alpha\Lambda + b\sigma}{S}U^\top(x_t - \alpha m),$$

which divides by neither alpha nor sigma. Over the components it is averaged with their posterior probabilities.
"""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from .protocols import Field, Path


class Mixture:
    """A mixture of K Gaussians over points of D numbers; its fields take and return (B, D).

    They have the precision of the points, and are computed in float32 at least.

    Args:
        weights: positive, (K,); they are divided by their sum.
        means: (K, D).
        covariances: symmetric and positive definite, (K, D, D).

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, weights or covariances that are not positive.
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
        """Return the mixture of equal shares of N(mean, std^2 I), for means (K, D)."""
        count, size = means.shape
        unit = torch.eye(size, dtype=torch.float64, device=means.device).expand(count, size, size)
        return cls(torch.ones(count, device=means.device), means, std**2 * unit)

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return samples, (count, D), in the precision in which the means were given."""
        device = self.means.device
        chosen = torch.multinomial(self.weights, max(count, 1), replacement=True, generator=generator)[:count]
        z = torch.randn(count, self.means.shape[1], generator=generator, dtype=torch.float64, device=device)
        spread = torch.einsum("bij,bj->bi", self._axes[chosen], self._variances[chosen].sqrt() * z)
        return (self.means[chosen] + spread).to(self._dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density, (B,), in nats and in float32 at least, of points (B, D)."""
        x = _wide(x)
        one, zero = (
            torch.ones(len(x), dtype=x.dtype, device=x.device),
            torch.zeros(len(x), dtype=x.dtype, device=x.device),
        )
        return torch.logsumexp(self._joint(x, one, zero), dim=1)

    def along(self, path: Path, t: float) -> "Mixture":
        """Return the mixture that the state x_t is distributed by."""
        time = torch.tensor(t, dtype=torch.float64, device=self.means.device)
        alpha, sigma = path.alpha(time), path.sigma(time)
        unit = torch.eye(self.means.shape[1], dtype=torch.float64, device=self.means.device)
        return Mixture(self.weights, alpha * self.means, alpha**2 * self.covariances + sigma**2 * unit)

    def velocity(self, path: Path) -> Field:
        """Return E[alpha_dot x + sigma_dot eps | x_t] as a field.

        It raises ValueError at times at which alpha_dot or sigma_dot is infinite, as sigma_dot is at t = 1 on `VP`.
        """
        return self._mean(path, path.alpha_dot, path.sigma_dot)

    def data(self, path: Path) -> Field:
        """Return E[x | x_t] as a field."""
        return self._mean(path, torch.ones_like, torch.zeros_like)

    def noise(self, path: Path) -> Field:
        """Return E[eps | x_t] as a field."""
        return self._mean(path, torch.zeros_like, torch.ones_like)

    def score(self, path: Path) -> Field:
        """Return the gradient of the log-density of x_t as a field: -E[eps | x_t] / sigma, finite at sigma = 0 too."""

        def field(x: Tensor, t: Tensor) -> Tensor:
            dtype, x, t = x.dtype, _wide(x), _wide(t)
            alpha, sigma = path.alpha(t), path.sigma(t)
            gaps, spread = self._gaps(x, alpha), self._spread(x, alpha, sigma)
            return self._average(x, alpha, sigma, -self._turn_back(gaps / spread)).to(dtype)

        return field

    def _mean(self, path: Path, a: Callable[[Tensor], Tensor], b: Callable[[Tensor], Tensor]) -> Field:
        """Return E[a x + b eps | x_t] as a field."""

        def field(x: Tensor, t: Tensor) -> Tensor:
            dtype, x, t = x.dtype, _wide(x), _wide(t)
            alpha, sigma = path.alpha(t), path.sigma(t)
            _check_rates(path, t, lambda t: a(t) + b(t))
            a_t, b_t, alpha_t, sigma_t = (_column(v, x) for v in (a(t), b(t), alpha, sigma))
            gain = (a_t * alpha_t * self._variances.to(x) + b_t * sigma_t) / self._spread(x, alpha, sigma)
            means = a_t * self.means.to(x) + self._turn_back(gain * self._gaps(x, alpha))
            return self._average(x, alpha, sigma, means).to(dtype)

        return field

    def _average(self, x: Tensor, alpha: Tensor, sigma: Tensor, values: Tensor) -> Tensor:
        """Return the mean (B, D) of the components' values (B, K, D) given the state."""
        return torch.sum(self._joint(x, alpha, sigma).softmax(1)[..., None] * values, 1)

    def _joint(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the log-density of state and component, (B, K)."""
        spread = self._spread(x, alpha, sigma)
        squares = self._gaps(x, alpha) ** 2 / spread + torch.log(2 * torch.pi * spread)
        return self.weights.to(x).log() - torch.sum(squares, 2) / 2

    def _gaps(self, x: Tensor, alpha: Tensor) -> Tensor:
        """Return x_t - alpha m in each component's own axes, (B, K, D)."""
        if x.ndim != 2 or x.shape[1] != self.means.shape[1]:
            raise ValueError(f"this mixture takes x of shape (B, {self.means.shape[1]}), got {tuple(x.shape)}")
        return torch.einsum("kij,bki->bkj", self._axes.to(x), x[:, None] - _column(alpha, x) * self.means.to(x))

    def _spread(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return S, (B, K, D)."""
        spread: Tensor = _column(alpha, x) ** 2 * self._variances.to(x) + _column(sigma, x) ** 2
        return spread

    def _turn_back(self, values: Tensor) -> Tensor:
        """Return values (B, K, D) in the components' axes as such in the data's."""
        return torch.einsum("kij,bkj->bki", self._axes.to(values), values)


def _check_rates(path: Path, t: Tensor, rates: Callable[[Tensor], Tensor]) -> None:
    """Raise ValueError if a rate is infinite; of times on a device, that counts which a solver knows (`known_time`)."""
    if torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(t):
        return
    if t.device.type != "cpu":
        known = getattr(t, "known_time", None)
        if known is None:
            return
        t = torch.tensor(known, dtype=t.dtype, device="cpu")
    wrong = ~rates(t).isfinite()
    if not wrong.any():
        return
    time = float(t[wrong][0])
    raise ValueError(
        f"{path}: alpha_dot or sigma_dot is infinite at t = {time:.6g}, and so is the velocity: "
        f"{'start later' if time < 0.5 else 'end before, at t = 0.99999 or the like'}"
    )


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _column(values: Tensor, x: Tensor) -> Tensor:
    """Return values of times, () or (B,), as (1 or B, 1, 1) in x's precision.

    Raises:
        ValueError: values of another shape.
    """
    if values.ndim and values.shape != x.shape[:1]:
        raise ValueError(
            f"t must be a scalar or have shape ({len(x)},) as x has {len(x)} rows, got {tuple(values.shape)}"
        )
    return values.to(x).reshape(-1, 1, 1)
