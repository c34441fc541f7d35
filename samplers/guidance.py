"""Classifier-free guidance."""

from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from . import guided_rows
from .conditions import check_rows, mapped, null_of, rows_of_conditions
from .protocols import Model


@dataclass(frozen=True, eq=False)
class ClassifierFree:
    r"""$v_\mathrm{null} + \mathrm{scale}\,(v_y - v_\mathrm{null})$ (Ho and Salimans, arXiv 2207.12598; SiT, eq. 68-75).

    A field: one call of the network a call, with two rows a sample where t lies in `interval` (ends included) and one,
    the conditional one, elsewhere. The guided field is not the velocity of a family of marginals: under guidance
    w changes the target. In functions that are traced (`torch.compile`, `torch.func.vmap` over times) and for an
    interval inside of (0, 1), every row is computed both ways.

    Args:
        model: a network, called as (x, t, y=conditions).
        y: labels, (B,), or conditions of any shape (B, ...), or dicts, tuples and lists of such.
        null: the null condition: a number, or a tensor of the shape of y or of one row of it, or these in dicts, tuples
            and lists as y is.
        scale: 1 is the conditional field, 0 the unconditional one; a number, or each row's own, (B,).
        interval: the times at which guidance acts (Kynkaanniemi et al., arXiv 2404.07724); (0, 1) is all times.
        channels: how many leading channels are guided; all by default, 3 in the official code.

    Raises:
        ValueError: `interval` is not one, `scale` is not finite, `channels` is not positive, or `null` does not fit y.
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
        guided_rows.checked(self.scale, self.interval)
        if self.channels is not None and not (isinstance(self.channels, Integral) and self.channels >= 1):
            raise ValueError(f"channels must be a whole number, at least 1, or None for all, got {self.channels}")
        null = null_of(self.null, self.y)  # made here, so that calls need not wait for them
        object.__setattr__(self, "_null", null)
        object.__setattr__(self, "_both", mapped(_stacked, self.y, null))

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the guided field, (B, *), at states x and times t (B,), in the dtype of the network's output.

        Raises:
            ValueError: x has not as many rows as there are conditions, or scales.
        """
        check_rows(self.y, len(x))
        guided = guided_rows.guided(t, self.scale, self.interval)
        if guided.rows is None:
            y = self._both
        elif len(guided.rows):
            y = mapped(lambda one, null: torch.cat([one, null[guided.rows]]), self.y, self._null)
        else:
            return self.model(x, t, y=self.y)
        both = self.model(torch.cat([x, guided.of(x)]), torch.cat([t, guided.of(t)]), y=y)
        conditional, unconditional = both[: len(x)], both[len(x) :]
        strong = guided.of(conditional)
        scale = guided_rows.scales(self.scale, guided, x)
        if self.channels is None:
            return guided.put(conditional, guided_rows.mixed(unconditional, strong, scale))
        first, rest = strong[:, : self.channels], strong[:, self.channels :]
        mixture = guided_rows.mixed(unconditional[:, : self.channels], first, scale)
        return guided.put(conditional, torch.cat([mixture, rest], dim=1))

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times at which guidance sets in or ends: the field is discontinuous there."""
        return guided_rows.jumps(self.scale, self.interval)

    def rows(self, index: Tensor, /) -> "ClassifierFree":
        """Return the field of the rows `index` (N,)."""
        scale = self.scale[index] if isinstance(self.scale, Tensor) and self.scale.ndim else self.scale
        y, null = (rows_of_conditions(each, index) for each in (self.y, self._null))
        return replace(self, y=y, null=null, scale=scale)


def _stacked(one: Tensor, null: Tensor) -> Tensor:
    return torch.cat([one, null])
