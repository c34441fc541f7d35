"""Paths to test with, one of them a user's own, and data whose fields are known in closed form."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sitkit.interpolants import GVP, VP, Interpolant, Linear


class Quadratic(Interpolant):
    """Slow to leave the noise; written as a user would, without derivatives."""

    def alpha(self, t: Tensor) -> Tensor:
        return t**2

    def sigma(self, t: Tensor) -> Tensor:
        return 1 - t**2

    def __repr__(self) -> str:
        return "Quadratic()"


PATHS = (Linear(), GVP(), VP(), Quadratic())


@dataclass(frozen=True)
class Mixture:
    """Equal Gaussians N(mean_k, std^2 I), of any event shape: its posterior means along a path are exact."""

    means: Tensor
    std: float

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        chosen = self.means[torch.randint(len(self.means), (count,), generator=generator)]
        return chosen + self.std * torch.randn(chosen.shape, generator=generator, dtype=chosen.dtype)

    def data(self, path: Interpolant) -> Callable[[Tensor, Tensor], Tensor]:
        """Return E[x | x_t]."""

        def field(x_t: Tensor, t: Tensor) -> Tensor:
            shape = (-1,) + (1,) * (x_t.ndim - 1)
            alpha, sigma = (f(t).to(x_t.dtype).reshape(shape) for f in (path.alpha, path.sigma))
            variance = alpha**2 * self.std**2 + sigma**2
            gaps = x_t[:, None] - alpha[:, None] * self.means  # (B, K, *)
            logits = -gaps.square().flatten(2).sum(2) / (2 * variance.reshape(-1, 1))
            shares = logits.softmax(1).reshape(len(x_t), -1, *[1] * (x_t.ndim - 1))
            means = self.means + (alpha * self.std**2 / variance)[:, None] * gaps
            return (shares * means).sum(1)

        return field

    def velocity(self, path: Interpolant) -> Callable[[Tensor, Tensor], Tensor]:
        """Return E[alpha_dot x + sigma_dot eps | x_t], from its definition."""
        data = self.data(path)

        def field(x_t: Tensor, t: Tensor) -> Tensor:
            shape = (-1,) + (1,) * (x_t.ndim - 1)
            values = (
                f(t).to(x_t.dtype).reshape(shape) for f in (path.alpha, path.sigma, path.alpha_dot, path.sigma_dot)
            )
            alpha, sigma, alpha_dot, sigma_dot = values
            x = data(x_t, t)
            return alpha_dot * x + sigma_dot * (x_t - alpha * x) / sigma

        return field

    def score(self, path: Interpolant) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the gradient of the log-density of x_t, by differentiating the density itself."""

        def field(x_t: Tensor, t: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x_t.detach().requires_grad_()
                shape = (-1,) + (1,) * (x_t.ndim - 1)
                alpha = path.alpha(t).to(x.dtype)
                variance = alpha**2 * self.std**2 + path.sigma(t).to(x.dtype) ** 2
                gaps = x[:, None] - alpha.reshape(shape)[:, None] * self.means
                squares = gaps.square().flatten(2).sum(2)
                log_density = torch.logsumexp(-squares / (2 * variance.reshape(-1, 1)), dim=1).sum()
                (gradient,) = torch.autograd.grad(log_density, x)
            return gradient

        return field


@dataclass(frozen=True)
class Gaussian:
    """N(mean, std^2) in one dimension: every marginal along a path, and the flow between them, is known."""

    mean: float
    std: float

    def moments(self, path: Interpolant, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of x_t."""
        return path.alpha(t) * self.mean, torch.sqrt(path.alpha(t) ** 2 * self.std**2 + path.sigma(t) ** 2)

    def velocity(self, path: Interpolant) -> Callable[[Tensor, Tensor], Tensor]:
        return Mixture(torch.tensor([[self.mean]], dtype=torch.float64), self.std).velocity(path)

    def flow(self, path: Interpolant, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Return where the ODE carries x from time t to time s."""
        (mean_t, std_t), (mean_s, std_s) = self.moments(path, t), self.moments(path, s)
        return mean_s + std_s / std_t * (x - mean_t)


RING = Mixture(
    torch.tensor(
        [[math.cos(k), math.sin(k)] for k in torch.arange(5).mul(2 * math.pi / 5).tolist()], dtype=torch.float64
    ),
    std=0.3,
)


def slope(steps: list[int], errors: list[float]) -> float:
    """Return the order at which errors fall with the number of steps, by regression."""
    x = torch.tensor(steps, dtype=torch.float64).log()
    y = torch.tensor(errors, dtype=torch.float64).log()
    x, y = x - x.mean(), y - y.mean()
    return float(-(x * y).sum() / (x * x).sum())
