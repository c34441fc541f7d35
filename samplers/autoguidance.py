"""Guidance by a worse version of the same field."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .guidance import check_interval, guided_rows
from .protocols import Field, rows_of


@dataclass(frozen=True, eq=False)
class Autoguidance:
    """weak + scale (strong - weak) (Karras et al., arXiv 2406.02507, eq. 3).

    A field: the strong one is asked for every row, the weak one for those whose t lies in `interval`, ends included, or
    for every row if some lie inside and it is no `RowField`. One network under two conditions is the case of
    `ClassifierFree`, which asks it once for both. The guided field is not the velocity of a family of marginals.

    Args:
        strong: the field to guide; a network with labels is one as `Conditional(network, y)`.
        weak: a smaller or less trained one that errs in the same way.
        scale: the paper's w; 1 is the strong field, 0 the weak one.
        interval: the times at which guidance acts (Kynkaanniemi et al., arXiv 2404.07724).

    Raises:
        ValueError: `interval` is not one.
    """

    strong: Field
    weak: Field
    scale: float
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_interval(self.interval)

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the guided field, (B, *), at states x and times t (B,)."""
        strong = self.strong(x, t)
        guided = guided_rows(t, self.scale, self.interval)
        if not len(guided):
            return strong
        restrict = rows_of(self.weak)
        weak = restrict(guided)(x[guided], t[guided]) if restrict else self.weak(x, t)[guided]
        return strong.index_copy(0, guided, torch.lerp(weak, strong[guided], self.scale))

    @property
    def rows(self) -> Callable[[Tensor], "Autoguidance"]:
        """The function from `index` (N,) to the field of those rows; only of two fields that have it.

        Raises:
            AttributeError: `strong` or `weak` is no `RowField`, and neither is this one.
        """
        strong, weak = rows_of(self.strong), rows_of(self.weak)
        if strong is None or weak is None:
            raise AttributeError("rows: the strong and the weak field must both have it")
        return lambda index: Autoguidance(strong(index), weak(index), self.scale, self.interval)
