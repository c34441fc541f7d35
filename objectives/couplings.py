"""Which noise goes with which data: functions of (x, eps, y) to eps in another order.

With any coupling but `independent` the noise tells of the data, and eps given x is no longer standard normal: what
`score_from_velocity` returns is then not the score, and no SDE with w > 0 keeps the marginals. The velocity and its ODE
stay right.
"""

from dataclasses import dataclass
from numbers import Integral

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
        if not isinstance(self.block, Integral) or self.block < 1:
            raise ValueError(f"block must be a whole number, at least 1, got {self.block}")

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
        gains, labels = _gains(x, eps, self.block), _on_host(y) if self.classwise and y is not None else None
        order = torch.arange(len(x), device="cpu")
        for block, gain in enumerate(gains):
            rows = torch.arange(block * self.block, (block + 1) * self.block, device="cpu")
            own = torch.zeros_like(rows) if labels is None else labels[rows]
            for label in torch.unique(own):
                alike = torch.nonzero(own == label)[:, 0]
                order[rows[alike]] = rows[alike[_assign(gain[alike][:, alike])]]
        order = order.pin_memory() if eps.is_cuda else order  # or else its copy would wait for the device
        return eps[order.to(eps.device, non_blocking=True)]


def _gains(x: Tensor, eps: Tensor, block: int) -> Tensor:
    """Return x eps for all pairs in a block, (N, block, block), on the CPU: it waits once for a device."""
    each = [
        one.reshape(block, -1).double() @ other.reshape(block, -1).double().T
        for one, other in zip(torch.split(x, block), torch.split(eps, block), strict=True)
        if len(one)
    ]
    return _on_host(torch.stack(each)) if each else torch.empty(0, block, block, device="cpu")


def _on_host(values: Tensor) -> Tensor:
    return values.detach().cpu()


def _assign(gains: Tensor) -> Tensor:
    """Return the number of the noise that goes with each row: |x - eps|^2 is least where x eps is largest."""
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 (few objectives need it)

    _, columns = linear_sum_assignment(gains.numpy(), maximize=True)
    return torch.from_numpy(columns)
