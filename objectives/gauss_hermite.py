"""Gauss-Hermite quadrature for expectations of standard normal variables."""

import torch
from torch import Tensor


def gauss_hermite(size: int) -> tuple[Tensor, Tensor]:
    """Return points and weights, (size,) each, in float64. The rule is exact for polynomials of degree 2 size - 1."""
    off_diagonal = torch.arange(1, size, dtype=torch.float64).sqrt()
    points, vectors = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    return points, vectors[0] ** 2
