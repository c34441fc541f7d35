"""Autoguidance: guidance by a weaker version of the same network."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .guidance_interval import check_arguments, extrapolate, guided_rows, interval_jumps, select_scale
from .jumps import jumps_of
from .protocols import Field, rows_method


@dataclass(frozen=True, eq=False)
class Autoguidance:
    """The guided field weak + scale (strong - weak) (Karras et al., arXiv 2406.02507, eq. 3).

    Each call evaluates the strong field at every row, and the weak field at the rows with t in `interval`, ends
    included. A weak field without the method `rows` (`RowField`) is evaluated at every row if any is in the interval.
    For one network under two conditions, use `ClassifierFree`, which evaluates both in one batch. The guided field is
    not the velocity of a family of marginals.

    Args:
        strong: the field to guide. For a network with labels, use `Conditional(network, y)`.
        weak: the field of a smaller or less trained network.
        scale: the paper's w, a number or one per row, (B,). 1 is the strong field, 0 the weak field.
        interval: the times at which guidance is applied (Kynkaanniemi et al., arXiv 2404.07724). Default: all times.

    Raises:
        ValueError: `interval` is not (low, high), or `scale` is not finite.
    """

    strong: Field
    weak: Field
    scale: float | Tensor
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_arguments(self.scale, self.interval)

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the guided field, (B, *), at states x and times t (B,), in the dtype of the strong field.

        Raises:
            ValueError: the number of scales differs from the number of rows of x.
        """
        strong = self.strong(x, t)
        guided = guided_rows(t, self.scale, self.interval)
        if guided.rows is None:
            weak = self.weak(x, t)
        elif not len(guided.rows):
            return strong
        else:
            select, restrict = guided.select, rows_method(self.weak)
            weak = restrict(guided.rows)(select(x), select(t)) if restrict else select(self.weak(x, t))
        scale = select_scale(self.scale, guided, x)
        return guided.merge(strong, extrapolate(weak, guided.select(strong), scale))

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times at which the field is discontinuous: the ends of the interval, and the jumps of both fields."""
        ends = interval_jumps(self.scale, self.interval)
        return tuple(sorted({*ends, *jumps_of(self.strong), *jumps_of(self.weak)}))

    @property
    def rows(self) -> Callable[[Tensor], "Autoguidance"]:
        """A function from `index` (N,) to the field of those rows. It exists if both fields have the method `rows`.

        Raises:
            AttributeError: `strong` or `weak` has no method `rows`.
        """
        strong, weak = rows_method(self.strong), rows_method(self.weak)
        if strong is None or weak is None:
            raise AttributeError("the strong or the weak field has no method `rows`, so this field has none")

        def restricted(index: Tensor) -> "Autoguidance":
            scale = self.scale[index] if isinstance(self.scale, Tensor) and self.scale.ndim else self.scale
            return Autoguidance(strong(index), weak(index), scale, self.interval)

        return restricted
