"""Couplings of noise with data: functions (x, eps, y) -> eps that permute the noise of a batch.

Under any coupling but `independent`, eps given x is not standard normal. The result of `score_from_velocity` is then
not the score, and an SDE with w > 0 does not keep the marginals. The velocity and its ODE remain valid.

On a two-sided path, couplings pair the source with the data instead, and the noise z is independent of both. There, the
score is valid for every coupling.
"""

from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor


def independent(x: Tensor, eps: Tensor, y: Tensor | None = None, /) -> Tensor:
    """Return eps unchanged."""
    return eps


@dataclass(frozen=True)
class OptimalTransport:
    """Minibatch optimal transport: the pairing of least total squared distance within each block of samples.

    The assignment problem is solved exactly by scipy (Tong et al., arXiv 2302.00482; Pooladian et al.,
    arXiv 2304.14772). Blocks are consecutive samples and have a fixed size, so the result does not depend on the number
    of processes, as long as each process holds whole blocks.

    Args:
        block: the number of samples in a block.
        classwise: whether to permute noise among samples of the same label only. Use it for networks that are
            conditioned on labels: otherwise the noise depends on the label, and sampling from N(0, I) is wrong.

    Raises:
        ValueError: `block` is less than 1.
    """

    block: int
    classwise: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.block, Integral) or self.block < 1:
            raise ValueError(f"block must be a whole number, at least 1, got {self.block}")

    def __call__(self, x: Tensor, eps: Tensor, y: Tensor | None = None, /) -> Tensor:
        """Return the noise, (B, *), permuted so that row n is paired with row n of x, (B, *).

        Raises:
            ValueError: B is not a multiple of `block`, shapes differ, or `classwise` is set and y is not of shape (B,).
        """
        if x.shape != eps.shape or len(x) % self.block:
            raise ValueError(
                f"give x and eps of one shape and a multiple of {self.block} rows, "
                f"got {tuple(x.shape)} and {tuple(eps.shape)}"
            )
        if self.classwise and (y is None or y.shape != x.shape[:1]):
            raise ValueError(f"classwise transport needs labels of shape ({len(x)},)")
        products = _inner_products(x, eps, self.block)
        labels = _to_cpu(y) if self.classwise and y is not None else None
        order = torch.arange(len(x), device="cpu")
        for block, product in enumerate(products):
            rows = torch.arange(block * self.block, (block + 1) * self.block, device="cpu")
            block_labels = torch.zeros_like(rows) if labels is None else labels[rows]
            for label in torch.unique(block_labels):
                members = torch.nonzero(block_labels == label)[:, 0]
                order[rows[members]] = rows[members[_assign(product[members][:, members])]]
        order = order.pin_memory() if eps.is_cuda else order  # the copy is then asynchronous
        return eps[order.to(eps.device, non_blocking=True)]


def _inner_products(x: Tensor, eps: Tensor, block: int) -> Tensor:
    """Return the inner products of all pairs in each block, (N, block, block), on the CPU, by one synchronisation."""
    products = [
        one.reshape(block, -1).double() @ other.reshape(block, -1).double().T
        for one, other in zip(torch.split(x, block), torch.split(eps, block), strict=True)
        if len(one)
    ]
    return _to_cpu(torch.stack(products)) if products else torch.empty(0, block, block, device="cpu")


def _to_cpu(values: Tensor) -> Tensor:
    return values.detach().cpu()


def _assign(products: Tensor) -> Tensor:
    """Return the index of the noise for each row of data, which maximises the sum of <x, eps>."""
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 (imported on use)

    _, columns = linear_sum_assignment(products.numpy(), maximize=True)
    return torch.from_numpy(columns)
