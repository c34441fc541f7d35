"""The kernel distance between two sets of features: KID, for those of Inception."""

import torch
from torch import Tensor

from .feature_checks import MAX_PAIRS, validate_features


def kernel_distance(real: Tensor, fake: Tensor, *, chunk: int = MAX_PAIRS) -> float:
    r"""Return the kernel distance, KID for Inception's pooled features (Binkowski et al., arXiv 1801.01401, section 4).

    The unbiased estimate of the squared maximum mean discrepancy (Gretton et al., 2012, eq. 3),
    $\frac{1}{m(m-1)}\sum_{i \ne j} k(x_i, x_j) + \frac{1}{n(n-1)}\sum_{i \ne j} k(y_i, y_j)
    - \frac{2}{mn}\sum_{i, j} k(x_i, y_j)$ with $k(x, y) = (x \cdot y / D + 1)^3$, over all points, in float64.
    Since it is unbiased, its mean over independent samples of one distribution is 0, so that single values can be
    negative; for equal sets it is never positive. Other implementations average over random subsets, which has the same
    expectation.

    Args:
        real: features, (M, D).
        fake: features, (N, D).
        chunk: how many pairs are computed at once; affects memory only.

    Raises:
        ValueError: the shapes are invalid, there are fewer than two points, or features are not finite.
    """
    real, fake = validate_features(real, fake, 1, torch.float64)
    within = sum(_kernel_sum(x, x, chunk, off_diagonal=True) / (len(x) * (len(x) - 1)) for x in (real, fake))
    return within - 2 * _kernel_sum(real, fake, chunk) / (len(real) * len(fake))


def _kernel_sum(x: Tensor, y: Tensor, chunk: int, off_diagonal: bool = False) -> float:
    """Return the sum of the kernel over all pairs; with `off_diagonal`, without the pairs of a point with itself."""
    total, start = x.new_zeros(()), 0
    for part in torch.split(x, max(1, chunk // len(y))):
        kernels = torch.addmm(y.new_ones(()), part, y.T, alpha=1 / y.shape[1]).pow_(3)
        if off_diagonal:
            kernels.diagonal(start).zero_()
        total, start = total + kernels.sum(), start + len(part)
    return float(total)
