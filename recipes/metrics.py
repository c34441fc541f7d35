"""Numbers that compare samples with data, in float64; of features of images, whatever computes these.

The names of the literature belong to one extractor each: the Frechet distance of Inception's pool features is FID.
"""

import torch
from torch import Tensor

from .evaluate.streaming import Moments

__all__ = [
    "Moments",
    "energy_distance",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "moments",
    "nearer_share",
    "nearest",
    "precision_recall",
]
CHUNK = 2**22
"""How many pairs of points are compared at once: some tens of megabytes."""


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (D,) and the unbiased covariance (D, D), float64, of features (N, D)."""
    x = x.double()
    return x.mean(0), torch.cov(x.T).reshape(x.shape[1], x.shape[1])


def frechet_distance(mu1: Tensor, sigma1: Tensor, mu2: Tensor, sigma2: Tensor) -> float:
    r"""Return the squared Frechet distance of two Gaussians (Dowson and Landau, 1982; FID: Heusel et al., 2017).

    $\|\mu_1 - \mu_2\|^2 + \mathrm{tr}(\Sigma_1 + \Sigma_2) - 2\,\mathrm{tr}(\Sigma_1\Sigma_2)^{1/2}$, the last as the
    sum of singular values of $R_1^\top R_2$, where $\Sigma = R R^\top$ by eigenvectors: all is real. Eigenvalues within
    rounding of 0 are left out, as there are with fewer images than features: their roots would not be small.

    Args:
        mu1: mean, (D,).
        sigma1: covariance, (D, D), symmetric.
        mu2: the other mean.
        sigma2: the other covariance.

    Raises:
        ValueError: for other shapes, or numbers that are not finite.
    """
    mu1, sigma1, mu2, sigma2 = given = [value.double() for value in (mu1, sigma1, mu2, sigma2)]
    size = mu1.numel()
    shapes = [tuple(value.shape) for value in given]
    if size == 0 or shapes != [(size,), (size, size)] * 2:
        raise ValueError(f"means (D,) and covariances (D, D) are wanted, not {', '.join(map(str, shapes))}")
    if not all(value.isfinite().all() for value in given):
        raise ValueError("a mean or a covariance is not finite; a covariance takes two images or more")
    cross = torch.linalg.svdvals(_root(sigma1).T @ _root(sigma2)).sum()
    return float((mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * cross)


def _root(sigma: Tensor) -> Tensor:
    """Return R, (D, rank), of which `sigma` is R R^T."""
    values, vectors = torch.linalg.eigh(sigma)
    kept = values > values.amax() * len(values) * torch.finfo(values.dtype).eps
    root: Tensor = vectors[:, kept] * values[kept].sqrt()
    return root


def kernel_distance(real: Tensor, fake: Tensor, *, chunk: int = CHUNK) -> float:
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
    real, fake = _alike(real, fake, 1, torch.float64)
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


def precision_recall(real: Tensor, fake: Tensor, k: int = 3, *, chunk: int = CHUNK) -> tuple[float, float]:
    r"""Return improved precision and recall (Kynkaanniemi et al., arXiv 1904.06991, eqs. 1 and 2).

    Precision is the share of fake points that lie, for at least one real point $\phi'$, within the distance of $\phi'$
    to its k-th nearest neighbour among the other real points; recall is the same with the sets exchanged. Distance
    equal to that radius counts as within, and points that are equal to $\phi'$ as its neighbours, at distance 0.
    Distances are sums of squared differences: faster products of matrices would give equal points a distance.

    Args:
        real: features, (M, D); distances are in their dtype or float32, whichever is wider.
        fake: features, (N, D).
        k: which neighbour gives the radius.
        chunk: how many pairs at once; it changes memory only.

    Raises:
        ValueError: for other shapes, k points or fewer, k < 1, or features that are not finite.
    """
    if k < 1:
        raise ValueError(f"k is {k}: neighbours are counted from 1")
    real, fake = _alike(real, fake, k, torch.float32)
    return _share_within(fake, real, k, chunk), _share_within(real, fake, k, chunk)


def _share_within(x: Tensor, among: Tensor, k: int, chunk: int) -> float:
    rows = max(1, chunk // len(among))
    # A point's distance to itself is exactly 0, so that the k-th of the others is number k + 1 of all.
    radii = torch.cat(
        [_distances(part, among).topk(k + 1, largest=False).values[:, -1] for part in torch.split(among, rows)]
    )
    within = [(_distances(part, among) <= radii).any(1) for part in torch.split(x, rows)]
    return float(torch.cat(within).double().mean())


def _distances(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _alike(real: Tensor, fake: Tensor, least: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return features in one dtype, `dtype` or wider."""
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or not real.shape[1]:
        raise ValueError(f"features (M, D) and (N, D) are wanted, not {tuple(real.shape)} and {tuple(fake.shape)}")
    if min(len(real), len(fake)) <= least:
        raise ValueError(f"{len(real)} real and {len(fake)} fake points are too few: {least + 1} of each are needed")
    if not (real.isfinite().all() and fake.isfinite().all()):
        raise ValueError("features are not finite")
    dtype = torch.promote_types(torch.promote_types(real.dtype, fake.dtype), dtype)
    return real.to(dtype), fake.to(dtype)


def inception_score(probs: Tensor, splits: int = 10) -> float:
    r"""Return the Inception score (Salimans et al., arXiv 1606.03498, section 4), the mean over consecutive splits.

    $\exp \mathrm{mean}_x\, \mathrm{KL}(p(y \mid x) \,\|\, p(y))$, natural logarithm, where $p(y)$ is the mean over a
    split: from 1 to K. Order matters, as samples are split where they stand; split i is that from i N // splits on.

    Args:
        probs: a classifier's probabilities, (N, K).
        splits: how many; ADM takes splits of 5000 images.

    Raises:
        ValueError: for other shapes, fewer images than splits, or rows that are no probabilities (sums to within 1e-3).
    """
    if probs.ndim != 2 or not 1 <= splits <= len(probs):
        raise ValueError(f"probabilities (N, K) and 1 to N splits are wanted, not {tuple(probs.shape)} and {splits}")
    sums = probs.sum(1, dtype=torch.float64)
    if not ((probs >= 0).all() and ((sums - 1).abs() <= 1e-3).all()):
        raise ValueError(f"probabilities must be 0 or more, and those of an image sum to 1, not {_furthest(sums)}")
    scores = []
    for split in range(splits):
        p = probs[split * len(probs) // splits : (split + 1) * len(probs) // splits].double()
        scores.append((torch.xlogy(p, p) - torch.xlogy(p, p.mean(0))).sum(1).mean().exp())
    return float(torch.stack(scores).mean())


def _furthest(sums: Tensor) -> float:
    return float(sums[(sums - 1).abs().argmax()])


def nearer_share(x: Tensor, one: Tensor, other: Tensor) -> float:
    """Return the share of points x (N, D) whose nearest neighbour among `one` is nearer than that among `other`."""
    return float((_nearest(x, one) < _nearest(x, other)).double().mean())


def nearest(x: Tensor, among: Tensor) -> Tensor:
    """Return the number, (N,), of the nearest of `among` (M, D) to each of the points x (N, D)."""
    return torch.cat([torch.cdist(part, among).argmin(1) for part in torch.split(x, 1024)])


def _nearest(x: Tensor, among: Tensor) -> Tensor:
    return torch.cat([torch.cdist(part, among).amin(1) for part in torch.split(x, 1024)])


def energy_distance(x: Tensor, y: Tensor) -> float:
    r"""Return $2 E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|$ (Szekely and Rizzo, 2013) of point sets (N, D) and (M, D).

    The expectations are over the sets as they are: 0 for equal sets, positive for others, also two draws of one law.
    """
    x, y = x.double(), y.double()
    return float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean())
