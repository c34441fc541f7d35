"""The Frechet distance between two sets of features: FID, for those of Inception."""

import torch
from torch import Tensor


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (D,) and the unbiased covariance (D, D), float64, of features (N, D)."""
    x = x.double()
    return x.mean(0), torch.cov(x.T).reshape(x.shape[1], x.shape[1])


def frechet_distance(mu1: Tensor, sigma1: Tensor, mu2: Tensor, sigma2: Tensor) -> float:
    r"""Return the squared Frechet distance of two Gaussians (Dowson and Landau, 1982; FID: Heusel et al., 2017).

    $\|\mu_1 - \mu_2\|^2 + \mathrm{tr}(\Sigma_1 + \Sigma_2) - 2\,\mathrm{tr}(\Sigma_1\Sigma_2)^{1/2}$, the last
    computed as the sum of the singular values of $R_1^\top R_2$, with $\Sigma = R R^\top$ by eigenvectors, so that all
    values are real. Eigenvalues within rounding error of 0, which occur with fewer images than features, are
    dropped, since their square roots would not be negligible.

    Args:
        mu1: mean, (D,).
        sigma1: covariance, (D, D), symmetric.
        mu2: the second mean.
        sigma2: the second covariance.

    Raises:
        ValueError: the shapes are invalid, or values are not finite.
    """
    mu1, sigma1, mu2, sigma2 = given = [value.double() for value in (mu1, sigma1, mu2, sigma2)]
    size = mu1.numel()
    shapes = [tuple(value.shape) for value in given]
    if size == 0 or shapes != [(size,), (size, size)] * 2:
        raise ValueError(f"expected means (D,) and covariances (D, D), got {', '.join(map(str, shapes))}")
    if not all(value.isfinite().all() for value in given):
        raise ValueError("a mean or a covariance is not finite; a covariance needs at least two images")
    cross = torch.linalg.svdvals(_root(sigma1).T @ _root(sigma2)).sum()
    return float((mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * cross)


def _root(sigma: Tensor) -> Tensor:
    """Return R, (D, rank), with `sigma` = R R^T."""
    values, vectors = torch.linalg.eigh(sigma)
    positive = values > values.amax() * len(values) * torch.finfo(values.dtype).eps
    root: Tensor = vectors[:, positive] * values[positive].sqrt()
    return root
