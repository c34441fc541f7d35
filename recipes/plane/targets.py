"""Classic 2D distributions, centred and of about unit variance: (count, generator) -> points (count, 2)."""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Generator, Tensor

Target: TypeAlias = Callable[[int, Generator | None], Tensor]


def moons(count: int, generator: Generator | None = None) -> Tensor:
    """Sample points on two interleaving half circles."""
    side = _sides(count, generator)
    angle = math.pi * _uniform(count, generator)
    arc = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)  # the other half circle is this one rotated by pi
    return 1.3 * torch.where(side[:, None] == 0, arc, -arc) + 0.07 * _normal(count, generator)


def circles(count: int, generator: Generator | None = None) -> Tensor:
    """Sample points on two concentric circles."""
    radius = torch.where(_sides(count, generator) == 0, 0.8, 1.8)
    return _polar(radius, 2 * math.pi * _uniform(count, generator)) + 0.07 * _normal(count, generator)


def checkerboard(count: int, generator: Generator | None = None) -> Tensor:
    """Sample points in alternate squares of a 4x4 board."""
    column = torch.randint(4, (count,), generator=generator)
    row = 2 * _sides(count, generator) + column % 2
    corner = torch.stack([column, row], dim=1)
    return (corner + torch.rand(count, 2, generator=generator)) - 2


def pinwheel(count: int, generator: Generator | None = None) -> Tensor:
    """Sample points on five blades whose curvature grows with the radius."""
    radius = 1.3 + 0.4 * _normal(count, generator)[:, 0]
    width = 0.12 * _normal(count, generator)[:, 1]
    blade = torch.randint(5, (count,), generator=generator)
    angle = 2 * math.pi / 5 * blade + 0.6 * torch.exp(0.5 * radius)
    return _polar(radius, angle) + _polar(width, angle + math.pi / 2)


def spirals(count: int, generator: Generator | None = None) -> Tensor:
    """Sample points on two interleaved spirals."""
    turn = _uniform(count, generator).sqrt()
    angle = 3 * math.pi * turn + math.pi * _sides(count, generator)
    return _polar(2.2 * turn, angle) + 0.06 * _normal(count, generator)


def ring(count: int, generator: Generator | None = None) -> Tensor:
    """Sample points of eight Gaussians on a circle."""
    angle = 2 * math.pi / 8 * torch.randint(8, (count,), generator=generator)
    return _polar(torch.full((count,), 1.8), angle) + 0.15 * _normal(count, generator)


TARGETS: dict[str, Target] = {
    target.__name__: target for target in (moons, circles, checkerboard, pinwheel, spirals, ring)
}


def _uniform(count: int, generator: Generator | None) -> Tensor:
    return torch.rand(count, generator=generator)


def _normal(count: int, generator: Generator | None) -> Tensor:
    return torch.randn(count, 2, generator=generator)


def _sides(count: int, generator: Generator | None) -> Tensor:
    return torch.randint(2, (count,), generator=generator)


def _polar(radius: Tensor, angle: Tensor) -> Tensor:
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
