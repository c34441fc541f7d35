r"""The clock that paths share: $\lambda = \log(\alpha/\sigma)$, half the logarithm of the signal-to-noise ratio.

It rises from noise to data, by itself determines what the state says of the data, and is what DPM-Solver calls lambda
(arXiv 2206.00927, eq. 3.4); the paper's lambda is another thing, the derivative of this one times sigma.
"""

import torch
from torch import Tensor

from .protocols import Path


def log_snr(path: Path, t: Tensor) -> Tensor:
    """Return log(alpha / sigma) at times t, of t's shape: -inf where alpha = 0, inf where sigma = 0."""
    return torch.log(path.alpha(t)) - torch.log(path.sigma(t))


def time_at(path: Path, values: Tensor) -> Tensor:
    """Return the times at which log(alpha / sigma) has these values, by bisection, or the nearer end of [0, 1]."""
    low, high = torch.zeros_like(values), torch.ones_like(values)
    for _ in range(80):  # the noise of 1e-20 is as good as none
        t = (low + high) / 2
        below = log_snr(path, t) < values
        low, high = torch.where(below, t, low), torch.where(below, high, t)
    return torch.where(values == -torch.inf, 0.0, torch.where(values == torch.inf, 1.0, (low + high) / 2))


def correlation(values: Tensor) -> Tensor:
    r"""Return $\alpha/\sqrt{\alpha^2+\sigma^2} - 1$ for values of log(alpha / sigma): from -1 at noise to 0 at data.

    But for the 1, subtracted here so that it costs no digits near the data, this is the correlation between state and
    data of variance 1. It is finite at both ends, and along the ODE of standard normal data the data expected from the
    state is linear in it.
    """
    return -torch.sigmoid(-2 * values) / (1 + torch.sigmoid(2 * values).sqrt())
