"""The Frechet distance of two sets of features: FID, for those of Inception."""

import torch
from torch import Tensor


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
