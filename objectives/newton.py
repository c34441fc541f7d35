"""Newton's method for a few coefficients, with which the checks of objectives find the best affine network."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.functional import hessian, jacobian


def minimum(function: Callable[[Tensor], Tensor], size: int) -> Tensor | None:
    """Return the coefficients (size,) that minimise a smooth function, from 0; None if it is not strictly convex."""
    best = torch.zeros(size, dtype=torch.float64)
    for _ in range(20):
        slope: Tensor = jacobian(function, best)  # type: ignore[no-untyped-call]
        curvature: Tensor = hessian(function, best)  # type: ignore[no-untyped-call]
        if not (torch.linalg.eigvalsh(curvature) > 0).all():
            return None
        best = best - torch.linalg.solve(curvature, slope)
    return best
