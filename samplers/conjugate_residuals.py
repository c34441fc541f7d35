"""The method of generalised conjugate residuals for a batch of linear systems."""

from collections.abc import Callable

import torch
from torch import Tensor

from .states import broadcast_rows, flatten_rows


def conjugate_residuals(products: Callable[[Tensor], tuple[Tensor, Tensor]], b: Tensor, iterations: int) -> Tensor:
    """Return L u, where u approximates the solution of M u = b for each row of b (B, *), started from u = 0.

    After k iterations, u is the element of the Krylov space of dimension k with the least residual b - M u (Eisenstat,
    Elman and Schultz 1983). For a symmetric M, this is the method of conjugate residuals. Unlike conjugate gradients,
    the residual does not increase if M is not symmetric, as is that of a trained network.

    Args:
        products: the function of p (B, *) to L p and M p, called once per iteration.
        b: the right sides, (B, *).
        iterations: the number of iterations. As many as the dimension of b give the solution, if M + M^T is positive.
    """
    residual, result = b, torch.zeros((), dtype=b.dtype, device=b.device)
    smallest = (10 * torch.finfo(b.dtype).eps) ** 2 * _dot(b, b)
    history: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(iterations):
        moves = _dot(residual, residual) > smallest  # rows whose residual is a rounding error take no further step
        image, product = products(broadcast_rows(moves, residual) * residual)
        for image_before, product_before, square_before in history:
            overlap = _ratio(_dot(product, product_before), square_before)
            image = image - broadcast_rows(overlap, image) * image_before
            product = product - broadcast_rows(overlap, product) * product_before
        square = _dot(product, product)
        step = _ratio(_dot(residual, product), square)
        result = result + broadcast_rows(step, image) * image
        residual = residual - broadcast_rows(step, product) * product
        history.append((image, product, square))
    return result


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of each row, (B,)."""
    return (flatten_rows(a) * flatten_rows(b)).sum(1)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b, and 0 where b is 0. The derivative is finite, too."""
    is_zero = b == 0
    return torch.where(is_zero, 0, a) / torch.where(is_zero, 1, b)
