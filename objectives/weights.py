r"""Weights of the squared error in the noise, as functions of time (SiT, arXiv 2401.08740, sec. 3.1 and appendix A).

With noise-to-data derivatives $\lambda = \dot\alpha\sigma/\alpha - \dot\sigma$, which is infinite where alpha = 0.
"""

from torch import Tensor

from .protocols import Path, Weight


def velocity(path: Path) -> Weight:
    """Return t -> lambda(t)^2: the error in the noise becomes the error in the velocity (eq. 46-50)."""
    return lambda t: _lambda(path, t) ** 2


def likelihood(path: Path) -> Weight:
    """Return t -> lambda(t) / sigma(t): the integrand of the bound on the negative log-likelihood."""
    return lambda t: _lambda(path, t) / path.sigma(t)


def _lambda(path: Path, t: Tensor) -> Tensor:
    return path.alpha_dot(t) * path.sigma(t) / path.alpha(t) - path.sigma_dot(t)
