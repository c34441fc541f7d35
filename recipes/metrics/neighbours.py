"""Nearest neighbours in feature space."""

import torch
from torch import Tensor


def nearer_share(x: Tensor, one: Tensor, other: Tensor) -> float:
    """Return the fraction of points x (N, D) that are nearer to their nearest point of `one` than of `other`."""
    return float((_nearest_distance(x, one) < _nearest_distance(x, other)).double().mean())


def nearest(x: Tensor, among: Tensor) -> Tensor:
    """Return the index, (N,), of the nearest neighbour in `among` (M, D) for each of the points x (N, D)."""
    return torch.cat([torch.cdist(part, among).argmin(1) for part in torch.split(x, 1024)])


def _nearest_distance(x: Tensor, among: Tensor) -> Tensor:
    return torch.cat([torch.cdist(part, among).amin(1) for part in torch.split(x, 1024)])
