r"""The log signal-to-noise ratio $\lambda = \log(\alpha/\sigma)$, half the logarithm of alpha^2 / sigma^2.

It increases from noise to data and is the lambda of DPM-Solver (arXiv 2206.00927, eq. 3.4). SiT's lambda is different:
it is sigma times the derivative of this one.
"""

import torch
from torch import Tensor

from .path_from_noise import check_from_noise
from .protocols import Path


def log_snr(path: Path, t: Tensor) -> Tensor:
    """Return log(alpha / sigma) at times t, of t's shape: -inf where alpha = 0, inf where sigma = 0.

    Raises:
        ValueError: the path is two-sided.
    """
    check_from_noise(path, "the signal-to-noise ratio")
    return torch.log(path.alpha(t)) - torch.log(path.sigma(t))


def time_from_log_snr(path: Path, values: Tensor) -> Tensor:
    """Return the times at which log(alpha / sigma) has the given values, by bisection, or the nearest end of [0, 1]."""
    low, high = torch.zeros_like(values), torch.ones_like(values)
    for _ in range(80):  # 2^-80 is below any noise level that matters
        t = (low + high) / 2
        below = log_snr(path, t) < values
        low, high = torch.where(below, t, low), torch.where(below, high, t)
    return torch.where(values == -torch.inf, 0.0, torch.where(values == torch.inf, 1.0, (low + high) / 2))


def correlation(values: Tensor) -> Tensor:
    r"""Return $\alpha/\sqrt{\alpha^2+\sigma^2} - 1$ for values of log(alpha / sigma): from -1 at noise to 0 at data.

    The first term is the correlation between the state and data of variance 1. Subtracting 1 keeps precision near the
    data. The variable is finite at both ends, and on standard normal data the data prediction is linear in it along the
    ODE.
    """
    return -torch.sigmoid(-2 * values) / (1 + torch.sigmoid(2 * values).sqrt())
