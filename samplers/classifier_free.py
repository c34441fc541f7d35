"""Classifier-free guidance."""

from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from .conditions import check_rows, map_conditions, null_conditions, select_rows
from .guidance_interval import check_arguments, extrapolate, guided_rows, interval_jumps, select_scale
from .protocols import Model


@dataclass(frozen=True, eq=False)
class ClassifierFree:
    r"""The guided field $v_\mathrm{null} + \mathrm{scale}\,(v_y - v_\mathrm{null})$.

    Sources: Ho and Salimans, arXiv 2207.12598; SiT, arXiv 2401.08740, eq. 68-75.

    The guided field costs one NFE per call, on a batch of two network rows per sample where t is in `interval` (ends
    included) and one, the conditional row, elsewhere. In traced functions (`torch.compile`, `torch.func.vmap` over
    times), every sample takes two rows.

    The guided field is not the velocity of a family of marginals. The choice of w therefore changes the distribution
    of samples.

    Args:
        model: a network, called as (x, t, y=conditions).
        y: labels, (B,), or conditions of any shape (B, ...), or dicts, tuples and lists of them.
        null: the null condition: a number, or a tensor of the shape of y or of one row of y, or dicts, tuples and lists
            of them with the structure of y.
        scale: the guidance scale, a number or one per row, (B,). 1 is the conditional field, 0 the unconditional field.
        interval: the times at which guidance is applied (Kynkaanniemi et al., arXiv 2404.07724). Default: all times.
        channels: the number of leading channels that are guided. Default: all. The official code guides 3.

    Raises:
        ValueError: `interval` is not (low, high), `scale` is not finite, `channels` is not positive, or `null` does not
            match y.
    """

    model: Model
    y: Any
    null: Any
    scale: float | Tensor
    interval: tuple[float, float] = (0.0, 1.0)
    channels: int | None = None
    _null: Any = field(init=False, repr=False)
    _both: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_arguments(self.scale, self.interval)
        if self.channels is not None and not (isinstance(self.channels, Integral) and self.channels >= 1):
            raise ValueError(f"channels must be a whole number, at least 1, or None for all, got {self.channels}")
        null = null_conditions(self.null, self.y)  # created once, to avoid a synchronisation in each call
        object.__setattr__(self, "_null", null)
        object.__setattr__(self, "_both", map_conditions(_concatenate, self.y, null))

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the guided field, (B, *), at states x and times t (B,), in the dtype of the network's output.

        Raises:
            ValueError: the number of conditions or scales differs from the number of rows of x.
        """
        check_rows(self.y, len(x))
        guided = guided_rows(t, self.scale, self.interval)
        if guided.rows is None:
            y = self._both
        elif len(guided.rows):
            y = map_conditions(lambda y, null: torch.cat([y, null[guided.rows]]), self.y, self._null)
        else:
            return self.model(x, t, y=self.y)
        both = self.model(torch.cat([x, guided.select(x)]), torch.cat([t, guided.select(t)]), y=y)
        conditional, unconditional = both[: len(x)], both[len(x) :]
        strong = guided.select(conditional)
        scale = select_scale(self.scale, guided, x)
        if self.channels is None:
            return guided.merge(conditional, extrapolate(unconditional, strong, scale))
        first, rest = strong[:, : self.channels], strong[:, self.channels :]
        first = extrapolate(unconditional[:, : self.channels], first, scale)
        return guided.merge(conditional, torch.cat([first, rest], dim=1))

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times at which the field is discontinuous: the ends of the guidance interval."""
        return interval_jumps(self.scale, self.interval)

    def rows(self, index: Tensor, /) -> "ClassifierFree":
        """Return the field restricted to the rows `index`, (N,)."""
        scale = self.scale[index] if isinstance(self.scale, Tensor) and self.scale.ndim else self.scale
        y, null = (select_rows(each, index) for each in (self.y, self._null))
        return replace(self, y=y, null=null, scale=scale)


def _concatenate(condition: Tensor, null: Tensor) -> Tensor:
    return torch.cat([condition, null])
