r"""A field learnt on one path, read along another.

The states of two paths with one signal-to-noise ratio differ by a factor only: if $\alpha_1(u)/\sigma_1(u) =
\alpha_2(t)/\sigma_2(t)$, then $x_t = c\,x_u$ with $c = \sigma_2(t)/\sigma_1(u) = \alpha_2(t)/\alpha_1(u)$, and x
and eps are the same. So the posterior means of x and eps, and with them the velocity, carry over (Kingma et al.,
arXiv 2107.00630).
"""

import torch
from torch import Tensor

from .protocols import Field, Path


def reparametrise(velocity: Field, trained: Path, to: Path) -> Field:
    """Return the velocity along `to` of a field that is the velocity along `trained`; one call costs one call.

    Where `to` is noisier or cleaner than `trained` ever is (VP begins at alpha = .0066), the field is asked at the
    nearest end of `trained`, which is no longer exact.
    """

    def field(x: Tensor, t: Tensor) -> Tensor:
        u = _match(trained, to, t)
        alpha_1, sigma_1, alpha_2, sigma_2 = trained.alpha(u), trained.sigma(u), to.alpha(t), to.sigma(t)
        noisy = sigma_1 > alpha_1
        scale = torch.where(noisy, sigma_1 / sigma_2, alpha_1 / alpha_2)
        x_u = x * scale.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        v = velocity(x_u, u)
        return to.velocity(trained.data_from_velocity(v, x_u, u), trained.noise_from_velocity(v, x_u, u), t)

    return field


def _match(trained: Path, to: Path, t: Tensor) -> Tensor:
    """Return the time u of `trained` whose signal-to-noise ratio is that of `to` at t, by bisection."""
    alpha, sigma = to.alpha(t), to.sigma(t)
    low, high = torch.zeros_like(alpha), torch.ones_like(alpha)
    for _ in range(60):  # then the two are neighbours
        u = (low + high) / 2
        cleaner = trained.alpha(u) * sigma > alpha * trained.sigma(u)
        low, high = torch.where(cleaner, low, u), torch.where(cleaner, u, high)
    return torch.where(alpha == 0, 0.0, (low + high) / 2)
