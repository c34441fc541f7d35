"""Guidance by a worse version of the same field."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from . import guided_rows
from .jumps import jumps_of
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
        scale: the paper's w; 1 is the strong field, 0 the weak one; a number, or each row's own, (B,).
        interval: the times at which guidance acts (Kynkaanniemi et al., arXiv 2404.07724); (0, 1) is all times.

    Raises:
        ValueError: `interval` is not one, or `scale` is not finite.
    """

    strong: Field
    weak: Field
    scale: float | Tensor
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        guided_rows.checked(self.scale, self.interval)

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the guided field, (B, *), at states x and times t (B,), in the dtype of the strong field.

        Raises:
            ValueError: x has not as many rows as there are scales.
        """
        strong = self.strong(x, t)
        guided = guided_rows.guided(t, self.scale, self.interval)
        if guided.rows is None:
            weak = self.weak(x, t)
        elif not len(guided.rows):
            return strong
        else:
            restrict = rows_of(self.weak)
            weak = restrict(guided.rows)(guided.of(x), guided.of(t)) if restrict else guided.of(self.weak(x, t))
        scale = guided_rows.scales(self.scale, guided, x)
        return guided.put(strong, guided_rows.mixed(weak, guided.of(strong), scale))

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times at which the field is discontinuous: where guidance sets in or ends, and where its fields are."""
        own = guided_rows.jumps(self.scale, self.interval)
        return tuple(sorted({*own, *jumps_of(self.strong), *jumps_of(self.weak)}))

    @property
    def rows(self) -> Callable[[Tensor], "Autoguidance"]:
        """The function from `index` (N,) to the field of those rows; only of two fields that have it.

        Raises:
            AttributeError: `strong` or `weak` is no `RowField`, and neither is this one.
        """
        strong, weak = rows_of(self.strong), rows_of(self.weak)
        if strong is None or weak is None:
            raise AttributeError("rows: the strong and the weak field must both have it")

        def restricted(index: Tensor) -> "Autoguidance":
            scale = self.scale[index] if isinstance(self.scale, Tensor) and self.scale.ndim else self.scale
            return Autoguidance(strong(index), weak(index), scale, self.interval)

        return restricted
