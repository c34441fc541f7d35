r"""The diffusion coefficient that weighs the divergence against the noise to be integrated.

The bound on KL(data | samples) has the integrand $\frac{L_t}{2w}(1 + w/w_\mathrm{KL})^2$; adding $\eta\,w$ to it and
minimising over w gives (SiT, arXiv 2401.08740, eq. 14; its appendix, eq. 58, drops a factor 1/2)

$$w = w_\mathrm{KL}\sqrt{\frac{L_t}{L_t + 2\eta w_\mathrm{KL}^2}}
    = \left(\frac{1}{w_\mathrm{KL}^2} + \frac{2\eta}{L_t}\right)^{-1/2}.$$

The second form is finite where w_KL is not. There w = sqrt(L_0 / (2 eta)).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .diffusion import inside_of_infinite
from .protocols import Diffusion, Path


@dataclass(frozen=True)
class KLEta:
    """w(t) of the formula above: `KL` for eta = 0, and finite everywhere for eta > 0.

    Args:
        path: the path.
        eta: the price of noise; its unit is that of `loss_curve` over w^2. The paper does not publish its own.
        loss_curve: t -> L_t > 0, the squared error of the velocity at time t, summed over the data's dimensions, as
            `sitkit.objectives.LossCurve.measure` gives it for a trained network. Measured against single samples, as
            there and in the paper, it contains the variance of the velocity given the state, which no network can
            remove; eta is to be chosen with that in mind.

    Raises:
        ValueError: eta is negative or not finite.
    """

    path: Path
    eta: float
    loss_curve: Diffusion

    def __post_init__(self) -> None:
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"eta must be finite and at least 0, got {self.eta}")

    def __call__(self, t: Tensor, /) -> Tensor:
        """Return w(t), of t's shape."""
        path, inside = self.path, inside_of_infinite(self.path, t)
        alpha, sigma = path.alpha(inside), path.sigma(inside)
        delta = path.alpha_dot(inside) * sigma - alpha * path.sigma_dot(inside)
        inverse = alpha / (2 * sigma * delta)  # of KL's w
        inverse = torch.where(alpha == 0, 0.0, inverse)  # also on a path that is slow to leave the noise: 0 / 0
        price = 2 * self.eta / self.loss_curve(t) if self.eta else 0.0
        return ((inverse**2 + price) ** -0.5).to(t.dtype)
