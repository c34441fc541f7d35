"""Composite Gauss-Legendre quadrature on many intervals at once."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

PANELS, NODES = 10, 20
"""The number of panels of an interval, and the number of nodes of a panel."""


def _gauss_legendre() -> tuple[Tensor, Tensor, Tensor]:
    """Return nodes, weights, and the matrix that maps values at nodes to integrals up to each node, on [-1, 1]."""
    legendre = np.polynomial.legendre
    nodes, weights = legendre.leggauss(NODES)
    integrals = [legendre.legval(nodes, legendre.legint(row, lbnd=-1)) for row in np.eye(NODES)]
    matrix = np.stack(integrals, 1) @ np.linalg.inv(legendre.legvander(nodes, NODES - 1))
    return torch.from_numpy(nodes), torch.from_numpy(weights), torch.from_numpy(matrix)  # on any default device


_NODES, _WEIGHTS, _MATRIX = _gauss_legendre()


def quadrature_nodes(start: Tensor, end: Tensor, breaks: Iterable[Tensor] = ()) -> tuple[Tensor, Tensor]:
    """Return nodes and weights, both (N, PANELS * NODES), for integrals from start (N,) to end (N,).

    Panels have equal widths. But if a value of `breaks`, at which the integrand is discontinuous, lies inside an
    interval, the nearest end of a panel is moved there.
    """
    nodes, weights = _NODES.to(start.device), _WEIGHTS.to(start.device)
    width = ((end - start) / PANELS)[:, None, None]
    ends = torch.arange(PANELS + 1, dtype=torch.float64, device=start.device).repeat(len(start), 1)
    fixed = (ends == 0) | (ends == PANELS)
    for place in breaks:
        at = ((place - start) / width[:, 0, 0])[:, None]
        nearest = torch.where(fixed, torch.inf, (ends - at).abs()).argmin(1, keepdim=True)
        moved = torch.zeros_like(fixed).scatter(1, nearest, (at > 0) & (at < PANELS))
        ends, fixed = torch.where(moved, at, ends), fixed | moved
    ends = ends.sort(1).values[..., None]
    places = start[:, None, None] + width * (ends[:, :-1] + ends.diff(dim=1) * ((1 + nodes) / 2))
    return places.flatten(1), (width / 2 * weights * ends.diff(dim=1)).flatten(1)


def cumulative_integral(values: Tensor, quadrature_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the integrals from start to each node, of the shape of the values at nodes, and to the end, (N,)."""
    values, half = values.reshape(-1, PANELS, NODES), quadrature_weights.reshape(-1, PANELS, NODES) / _WEIGHTS
    panels = torch.sum(values * half * _WEIGHTS, 2)
    before = panels.cumsum(1) - panels
    return (before[:, :, None] + half * (values @ _MATRIX.T)).flatten(1), torch.sum(panels, 1)


def diverges(values: Tensor) -> Tensor:
    """Return whether an integral over an infinite interval diverges, for values (..., PANELS * NODES) at the nodes.

    The finite interval that replaces it starts with a panel of length 4 or more. A value that does not grow over that
    panel, unless it is 0, has an infinite integral.
    """
    first, second = values[..., 0], values[..., NODES]
    return (first > 0) & (first >= 0.99 * second)
