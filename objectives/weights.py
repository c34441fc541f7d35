r"""Weights, as functions of time, of the squared error in the noise (SiT, arXiv 2401.08740, sec. 3.1 and appendix A).

They use $\lambda = \dot\alpha\sigma/\alpha - \dot\sigma$, with derivatives in the direction from noise to data. It is
infinite where alpha = 0.
"""

from torch import Tensor

from .protocols import Path, Weight


def velocity(path: Path) -> Weight:
    """Return t -> lambda(t)^2, which turns the squared error in the noise into that in the velocity (eq. 46-50)."""
    return lambda t: _lambda(path, t) ** 2


def likelihood(path: Path) -> Weight:
    """Return t -> lambda(t) / sigma(t), the weight in the bound on the negative log-likelihood."""
    return lambda t: _lambda(path, t) / path.sigma(t)


def _lambda(path: Path, t: Tensor) -> Tensor:
    return path.alpha_dot(t) * path.sigma(t) / path.alpha(t) - path.sigma_dot(t)
