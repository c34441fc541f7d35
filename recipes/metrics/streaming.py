"""Mean and covariance of features that arrive in batches, in one or many processes."""

import torch
import torch.distributed as dist
from torch import Tensor


class Moments:
    r"""Accumulates count, mean and unbiased covariance of features, in float64.

    Two sets are merged by the formula of Chan, Golub and LeVeque (1979): with $\delta = \mu_b - \mu_a$,
    $\mu = \mu_a + \frac{n_b}{n} \delta$ and $S = S_a + S_b + \frac{n_a n_b}{n} \delta\delta^\top$, where $S$ is the
    sum of outer products about the mean. Means are stored as differences from a shift, the mean of the first batch, so
    that the rounding error caused by splitting into batches does not grow with the distance of the mean from 0.

    Args:
        size: the number of features, D.
        device: the device of the sums; a GPU in order to reduce over processes by NCCL.

    Raises:
        ValueError: `size` is less than 1.
    """

    def __init__(self, size: int, device: torch.device | str | None = None):
        if size < 1:
            raise ValueError(f"the number of features must be at least 1, got {size}")
        self.count = 0
        """The number N of accumulated feature vectors."""
        self._shift = torch.zeros(size, dtype=torch.float64, device=device)
        self._offset = torch.zeros_like(self._shift)  # the mean is _shift + _offset
        self._scatter = self._shift.new_zeros(size, size)

    @property
    def mean(self) -> Tensor:
        """The mean, (D,).

        Raises:
            ValueError: there are no features yet.
        """
        if not self.count:
            raise ValueError("there are no features yet, and therefore no mean")
        return self._shift + self._offset

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance, (D, D).

        Raises:
            ValueError: there are fewer than two feature vectors.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least two feature vectors, got {self.count}")
        return self._scatter / (self.count - 1)

    def update(self, features: Tensor) -> None:
        """Add features, (B, D), of any dtype and device; B may be 0.

        Raises:
            ValueError: the shape is invalid, or features are not finite; none of them is added.
        """
        if features.ndim != 2 or features.shape[1] != len(self._shift):
            raise ValueError(f"expected features (B, {len(self._shift)}), got {tuple(features.shape)}")
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
        self._merge(len(x), offset, x.T @ x)

    def merge(self, other: "Moments") -> None:
        """Add the features that `other` has accumulated.

        Raises:
            ValueError: it has another number of features.
        """
        if len(other._shift) != len(self._shift):
            raise ValueError(
                f"moments of {len(other._shift)} features cannot be merged into those of {len(self._shift)}"
            )
        if not other.count:
            return
        shift, offset, scatter = (value.to(self._shift) for value in (other._shift, other._offset, other._scatter))
        if not self.count:
            self._shift = shift.clone()
        self._merge(other.count, (shift - self._shift) + offset, scatter)

    def _merge(self, count: int, offset: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        delta = offset - self._offset
        self._scatter += scatter  # in place: the matrix may have hundreds of millions of elements
        self._scatter.addr_(delta, delta, alpha=self.count * count / total)
        self._offset = self._offset + delta * (count / total)
        self.count = total

    def reduce(self) -> "Moments":
        """Return the moments over all processes; without a process group, a copy of these.

        A collective: all processes must call it, including those without features.
        """
        total = Moments(len(self._shift), self._shift.device)
        if not (dist.is_available() and dist.is_initialized()):
            total.merge(self)
            return total
        sums = torch.cat([(self._shift + self._offset) * self.count, self._shift.new_tensor([self.count])])
        dist.all_reduce(sums)
        total.count = int(sums[-1])
        if total.count:
            total._shift = sums[:-1] / total.count
            offset = (self._shift - total._shift) + self._offset
            total._scatter = self._scatter + torch.outer(offset, offset) * self.count
            dist.all_reduce(total._scatter)
        return total
