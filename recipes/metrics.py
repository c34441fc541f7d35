"""Numbers that compare samples with data, in float64."""

import torch
from torch import Tensor


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (D,) and the unbiased covariance (D, D), float64, of features (N, D)."""
    x = x.double()
    return x.mean(0), torch.cov(x.T).reshape(x.shape[1], x.shape[1])


def frechet_distance(mu1: Tensor, sigma1: Tensor, mu2: Tensor, sigma2: Tensor) -> float:
    r"""Return the squared Frechet distance of two Gaussians (Dowson and Landau, 1982).

    $\|\mu_1 - \mu_2\|^2 + \mathrm{tr}(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1^{1/2}\Sigma_2\Sigma_1^{1/2})^{1/2})$: the roots
    are of symmetric matrices, so that no step can leave the real numbers.

    Args:
        mu1: mean, (D,).
        sigma1: covariance, (D, D).
        mu2: the other mean.
        sigma2: the other covariance.
    """
    mu1, sigma1, mu2, sigma2 = (value.double() for value in (mu1, sigma1, mu2, sigma2))
    values, vectors = torch.linalg.eigh(sigma1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ sigma2 @ root).clamp(min=0).sqrt().sum()
    return float((mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * cross)


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
