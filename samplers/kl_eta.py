r"""The diffusion coefficient that minimises the KL bound with a penalty on w.

The bound on KL(data | samples) has the integrand $\frac{L_t}{2w}(1 + w/w_\mathrm{KL})^2$. Adding the penalty $\eta\,w$
and minimising over w gives (SiT, arXiv 2401.08740, eq. 14; eq. 58 in its appendix lacks a factor 1/2)

$$w = w_\mathrm{KL}\sqrt{\frac{L_t}{L_t + 2\eta w_\mathrm{KL}^2}}
    = \left(\frac{1}{w_\mathrm{KL}^2} + \frac{2\eta}{L_t}\right)^{-1/2}.$$

The second form is also finite where w_KL is infinite. There, w = sqrt(L_t / (2 eta)).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .diffusion import avoid_infinite_ends
from .path_from_noise import DIFFUSIONS, check_from_noise
from .protocols import Diffusion, Path


@dataclass(frozen=True)
class KLEta:
    """w(t) of the formula above. It equals `KL` for eta = 0 and is finite everywhere for eta > 0.

    Args:
        path: the path.
        eta: the weight of the penalty, in units of `loss_curve` / w^2. The paper does not publish its value.
        loss_curve: a function t -> L_t > 0, the squared error of the velocity at time t, summed over the dimensions of
            the data. `sitkit.objectives.LossCurve.measure` returns it for a trained network. It contains the
            irreducible conditional variance of the velocity given the state, as in the paper. Choose eta accordingly.

    Raises:
        ValueError: eta is negative or not finite.
    """

    path: Path
    eta: float
    loss_curve: Diffusion

    def __post_init__(self) -> None:
        check_from_noise(self.path, "KLEta", DIFFUSIONS)
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"eta must be finite and at least 0, got {self.eta}")

    def __call__(self, t: Tensor, /) -> Tensor:
        """Return w(t), of t's shape."""
        path, inside = self.path, avoid_infinite_ends(self.path, t)
        alpha, sigma = path.alpha(inside), path.sigma(inside)
        delta = path.alpha_dot(inside) * sigma - alpha * path.sigma_dot(inside)
        inverse = alpha / (2 * sigma * delta)  # 1 / w_KL
        inverse = torch.where(alpha == 0, 0.0, inverse)  # instead of 0 / 0 where alpha = alpha_dot = 0
        penalty = 2 * self.eta / self.loss_curve(t) if self.eta else 0.0
        return ((inverse**2 + penalty) ** -0.5).to(t.dtype)
