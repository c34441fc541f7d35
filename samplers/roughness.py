r"""The third derivative $|D'''|$ of the data prediction along the ODE, in $u = \alpha/\sqrt{\alpha^2+\sigma^2}$.

`grids.fitted` uses shorter steps where it is large.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Roughness: TypeAlias = Callable[[Tensor], Tensor]
"""A function of u in (0, 1), float64, that returns the third derivative, of u's shape."""


@dataclass(frozen=True)
class NormalRoughness:
    r"""The root mean square of the third derivative over normal data with log-uniform standard deviations c.

    Along the ODE $D = c^2u/\sqrt{1-ku^2}$ times the noise, $k = 1-c^2$, and so
    $D''' = 3c^2k(1+4ku^2)(1-ku^2)^{-7/2}$. Data of variance 1 have none.

    Args:
        scales: the least and the largest c. The default suits standardised data with details down to a scale of 1/20.
        count: the number of values of c in the mean.

    Raises:
        ValueError: `scales` is not (low, high) with 0 < low < high, both finite.
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
