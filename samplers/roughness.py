r"""How fast the data prediction bends on its way: $|D'''|$ along the ODE, by $u = \alpha/\sqrt{\alpha^2+\sigma^2}$.

`grids.fitted` puts steps where it is large.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Roughness: TypeAlias = Callable[[Tensor], Tensor]
"""A function of u in (0, 1), of u's shape, float64."""


@dataclass(frozen=True)
class NormalRoughness:
    r"""That of normal data whose standard deviations c spread evenly in log c over `scales`, root mean square.

    Along the ODE $D = c^2u/\sqrt{1-ku^2}$ times the noise, $k = 1-c^2$, and so
    $D''' = 3c^2k(1+4ku^2)(1-ku^2)^{-7/2}$. Data of variance 1 have none.

    Args:
        scales: the least and the largest c, in units of the data: by default data as networks see them, standardised,
            with detail down to a twentieth.
        count: how many are averaged over.

    Raises:
        ValueError: scales that are not positive, rising and finite.
    """

    scales: tuple[float, float] = (0.05, 1.0)
    count: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.scales[0] < self.scales[1] < math.inf:
            raise ValueError(f"scales must be (low, high) with 0 < low < high, both finite, got {self.scales}")

    def __call__(self, u: Tensor, /) -> Tensor:
        """Return the roughness, of u's shape."""
        low, high = torch.tensor(self.scales, dtype=torch.float64, device=u.device).log()
        c2 = torch.exp(
            2 * torch.lerp(low, high, torch.linspace(0, 1, self.count, dtype=torch.float64, device=u.device))
        )
        k, square = 1 - c2, u[..., None] ** 2
        third = 3 * c2 * k * (1 + 4 * k * square) * (1 - k * square) ** -3.5
        return torch.mean(third.square(), -1).sqrt()
