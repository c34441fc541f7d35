"""The kernel distance of two sets of features: KID, for those of Inception."""

import torch
from torch import Tensor

from .feature_checks import MAX_PAIRS, validate_features


def kernel_distance(real: Tensor, fake: Tensor, *, chunk: int = MAX_PAIRS) -> float:
    r"""Return the kernel distance, KID for Inception's pool features (Binkowski et al., arXiv 1801.01401, section 4).

    The unbiased estimate of the squared maximum mean discrepancy (Gretton et al., 2012, eq. 3),
    $\frac{1}{m(m-1)}\sum_{i \ne j} k(x_i, x_j) + \frac{1}{n(n-1)}\sum_{i \ne j} k(y_i, y_j)
    - \frac{2}{mn}\sum_{i, j} k(x_i, y_j)$ with $k(x, y) = (x \cdot y / D + 1)^3$, of all points, in float64. Being
    unbiased, its mean is 0 for two draws of one law, so that it is below 0 now and then, and never above 0 for equal
    sets. Others report the mean over random subsets, which has the same expectation.

    Args:
        real: features, (M, D).
        fake: features, (N, D).
        chunk: how many pairs at once; it changes memory only.

    Raises:
        ValueError: for other shapes, fewer than two points, or features that are not finite.
    """
    real, fake = validate_features(real, fake, 1, torch.float64)
    within = sum(_kernel_sum(x, x, chunk, apart=True) / (len(x) * (len(x) - 1)) for x in (real, fake))
    return within - 2 * _kernel_sum(real, fake, chunk) / (len(real) * len(fake))


def _kernel_sum(x: Tensor, y: Tensor, chunk: int, apart: bool = False) -> float:
    """Return the sum of kernels of all pairs, `apart` without those of a number with itself."""
    total, start = x.new_zeros(()), 0
    for part in torch.split(x, max(1, chunk // len(y))):
        kernels = torch.addmm(y.new_ones(()), part, y.T, alpha=1 / y.shape[1]).pow_(3)
        if apart:
            kernels.diagonal(start).zero_()
        total, start = total + kernels.sum(), start + len(part)
    return float(total)
