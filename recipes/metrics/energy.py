"""The energy distance of two sets of points."""

import torch
from torch import Tensor


def energy_distance(x: Tensor, y: Tensor) -> float:
    r"""Return $2 E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|$ (Szekely and Rizzo, 2013) of point sets (N, D) and (M, D).

    The expectations are over the sets as they are: 0 for equal sets, positive for others, also two draws of one law.
    """
    x, y = x.double(), y.double()
    return float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean())
