"""Moments of features that come in batches, in one process or many."""

import torch
import torch.distributed as dist
from torch import Tensor


class Moments:
    r"""Count, mean and unbiased covariance of features seen so far, float64.

    Two sets are joined by Chan, Golub and LeVeque (1979): with $\delta = \mu_b - \mu_a$,
    $\mu = \mu_a + \frac{n_b}{n} \delta$ and $S = S_a + S_b + \frac{n_a n_b}{n} \delta\delta^\top$, $S$ the sum of outer
    products about the mean. Means are held as differences from a shift, the mean of the first batch, so that how
    features are split into batches matters as little for a mean far from 0 as for one near it.

    Args:
        size: how many features, D.
        device: where the sums are held: to reduce over processes by NCCL, a GPU.

    Raises:
        ValueError: `size` is less than 1.
    """

    def __init__(self, size: int, device: torch.device | str | None = None):
        if size < 1:
            raise ValueError(f"the number of features is {size}: it must be 1 or more")
        self.count = 0
        """How many feature vectors were seen, N."""
        self._shift = torch.zeros(size, dtype=torch.float64, device=device)
        self._offset = torch.zeros_like(self._shift)  # the mean is the sum of the two
        self._scatter = self._shift.new_zeros(size, size)

    @property
    def mean(self) -> Tensor:
        """The mean, (D,).

        Raises:
            ValueError: nothing was seen.
        """
        if not self.count:
            raise ValueError("no features were seen: they have no mean")
        return self._shift + self._offset

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance, (D, D).

        Raises:
            ValueError: fewer than two feature vectors were seen.
        """
        if self.count < 2:
            raise ValueError(f"a covariance takes two feature vectors or more, not {self.count}")
        return self._scatter / (self.count - 1)

    def update(self, features: Tensor) -> None:
        """Add features, (B, D), of any dtype and device; B may be 0.

        Raises:
            ValueError: for other shapes, or features that are not finite; none of them is added.
        """
        if features.ndim != 2 or features.shape[1] != len(self._shift):
            raise ValueError(f"features (B, {len(self._shift)}) are wanted, not {tuple(features.shape)}")
        x = features.detach().to(self._shift)
        if not x.isfinite().all():
            raise ValueError("features are not finite")
        if not len(x):
            return
        if not self.count:
            self._shift = x.mean(0)
        x = x - self._shift
        offset = x.mean(0)
        x = x - offset
        self._join(len(x), offset, x.T @ x)

    def merge(self, other: "Moments") -> None:
        """Add all that another has seen.

        Raises:
            ValueError: it is of another size.
        """
        if len(other._shift) != len(self._shift):
            raise ValueError(f"moments of {len(other._shift)} features do not join those of {len(self._shift)}")
        if not other.count:
            return
        shift, offset, scatter = (value.to(self._shift) for value in (other._shift, other._offset, other._scatter))
        if not self.count:
            self._shift = shift.clone()
        self._join(other.count, (shift - self._shift) + offset, scatter)

    def _join(self, count: int, offset: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        delta = offset - self._offset
        self._scatter += scatter  # in place, for there may be hundreds of millions of them
        self._scatter.addr_(delta, delta, alpha=self.count * count / total)
        self._offset = self._offset + delta * (count / total)
        self.count = total

    def reduce(self) -> "Moments":
        """Return the moments of what all processes have seen; without a process group, of what this one has.

        All processes call it, also those that saw nothing.
        """
        whole = Moments(len(self._shift), self._shift.device)
        if not (dist.is_available() and dist.is_initialized()):
            whole.merge(self)
            return whole
        sums = torch.cat([(self._shift + self._offset) * self.count, self._shift.new_tensor([self.count])])
        dist.all_reduce(sums)
        whole.count = int(sums[-1])
        if whole.count:
            whole._shift = sums[:-1] / whole.count
            offset = (self._shift - whole._shift) + self._offset
            whole._scatter = self._scatter + torch.outer(offset, offset) * self.count
            dist.all_reduce(whole._scatter)
        return whole
