"""Classifier-free guidance."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .protocols import Model


@dataclass(frozen=True, eq=False)
class ClassifierFree:
    r"""$v_\mathrm{null} + \mathrm{scale}\,(v_y - v_\mathrm{null})$ (Ho and Salimans, arXiv 2207.12598; SiT, eq. 68-75).

    A field: one call of the network a call, with two rows a sample where t lies in `interval` (ends included) and one,
    the conditional one, elsewhere. The guided field is not the velocity of a family of marginals: under guidance
    w changes the target.

    Args:
        model: a network, called as (x, t, y=labels).
        y: labels, (B,).
        null: the null label, an int or (B,).
        scale: 1 is the conditional field, 0 the unconditional one.
        interval: the times at which guidance acts (Kynkaanniemi et al., arXiv 2404.07724).
        channels: how many leading channels are guided; all by default, 3 in the official code.

    Raises:
        ValueError: `interval` is not one.
    """

    model: Model
    y: Tensor
    null: int | Tensor
    scale: float
    interval: tuple[float, float] = (0.0, 1.0)
    channels: int | None = None

    def __post_init__(self) -> None:
        check_interval(self.interval)

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the guided field, (B, *), at states x and times t (B,).

        Raises:
            ValueError: x has not as many rows as there are labels.
        """
        if len(x) != len(self.y):
            raise ValueError(f"there are {len(self.y)} labels, and x has {len(x)} rows")
        guided = guided_rows(t, self.scale, self.interval)
        null = torch.as_tensor(self.null, dtype=self.y.dtype, device=self.y.device).expand(self.y.shape)
        both = self.model(torch.cat([x, x[guided]]), torch.cat([t, t[guided]]), y=torch.cat([self.y, null[guided]]))
        field, unconditional = both[: len(x)], both[len(x) :]
        if not len(guided):
            return field
        channels = slice(None) if self.channels is None else slice(self.channels)
        conditional = field[guided]
        mixture = conditional.clone()
        mixture[:, channels] = torch.lerp(unconditional[:, channels], conditional[:, channels], self.scale)
        return field.index_copy(0, guided, mixture)

    def rows(self, index: Tensor, /) -> "ClassifierFree":
        """Return the field of the rows `index` (N,)."""
        null = self.null.expand(self.y.shape)[index] if isinstance(self.null, Tensor) else self.null
        return replace(self, y=self.y[index], null=null)


def check_interval(interval: tuple[float, float]) -> None:
    """Raise ValueError unless `interval` is one."""
    if not interval[0] <= interval[1]:
        raise ValueError(f"interval must be (low, high) with low <= high, got {interval}")


def guided_rows(t: Tensor, scale: float, interval: tuple[float, float]) -> Tensor:
    """Return the indices of the times t (B,) in `interval`, ends included; none for scale 1, which changes nothing."""
    low, high = interval
    return torch.nonzero((low <= t) & (t <= high))[:, 0] if scale != 1 else t.new_empty(0, dtype=torch.long)
