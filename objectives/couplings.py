"""Which noise goes with which data: functions of (x, eps, y) to eps in another order.

With any coupling but `independent` the noise tells of the data, and eps given x is no longer standard normal: what
`score_from_velocity` returns is then not the score, and no SDE with w > 0 keeps the marginals. The velocity and its ODE
stay right.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


def independent(x: Tensor, eps: Tensor, y: Tensor | None = None, /) -> Tensor:
    """Return eps as it is."""
    return eps


@dataclass(frozen=True)
class OptimalTransport:
    """The pairing of least total squared distance within each block of consecutive samples.

    Tong et al., arXiv 2302.00482, and Pooladian et al., arXiv 2304.14772; solved exactly by scipy. As blocks are of a
    fixed size, it does not matter how many processes share a batch, provided that none of them cuts a block.

    Args:
        block: samples in a block.
        classwise: whether noise changes places among samples of one label only. Without, noise would tell of the label,
            and a network that is conditioned on labels would learn to sample from less than all the noise.

    Raises:
        ValueError: the block is empty.
    """

    block: int
    classwise: bool = False

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(f"block must be at least 1, got {self.block}")

    def __call__(self, x: Tensor, eps: Tensor, y: Tensor | None = None, /) -> Tensor:
        """Return the noise, (B, *), in the order in which it goes with x, (B, *).

        Raises:
            ValueError: B is no multiple of the block, shapes differ, or there are no labels (B,) to respect.
        """
        if x.shape != eps.shape or len(x) % self.block:
            raise ValueError(
                f"give x and eps of one shape and a multiple of {self.block} rows, "
                f"got {tuple(x.shape)} and {tuple(eps.shape)}"
            )
        if self.classwise and (y is None or y.shape != x.shape[:1]):
            raise ValueError(f"classwise transport needs labels of shape ({len(x)},)")
        labels = y.cpu() if self.classwise and y is not None else torch.zeros(len(x))
        order = torch.arange(len(x))
        for rows in torch.split(torch.arange(len(x)), self.block):
            for label in torch.unique(labels[rows]):
                alike = rows[labels[rows] == label]
                order[alike] = alike[_assign(x[alike.to(x.device)], eps[alike.to(x.device)])]
        return eps[order.to(eps.device)]


def _assign(x: Tensor, eps: Tensor) -> Tensor:
    """Return the number of the noise that goes with each row."""
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 (few objectives need it)

    gains = x.flatten(1).double() @ eps.flatten(1).double().T  # |x - eps|^2 is least where x eps is largest
    _, columns = linear_sum_assignment(gains.cpu().numpy(), maximize=True)
    return torch.from_numpy(columns)
