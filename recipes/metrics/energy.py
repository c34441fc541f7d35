"""The energy distance between two sets of points."""

import torch
from torch import Tensor


def energy_distance(x: Tensor, y: Tensor) -> float:
    r"""Return $2 E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|$ (Szekely and Rizzo, 2013) of point sets (N, D) and (M, D).

    The expectations are over the given points, so that equal sets have distance 0, and two independent samples of one
    distribution have a positive one.
    """
    x, y = x.double(), y.double()
    return float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean())
