"""Regression of one quantity along a path."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from .precision import asked, mean_of_rows, wide
from .predicted import PredictedVelocity
from .protocols import Field, Path, Weight
from .quantities import Quantity, Velocity


@dataclass(frozen=True)
class Matching:
    r"""The network outputs `predict`; its squared error is taken in `measure`, times `weight(t)`.

    $$\ell = \mathrm{weight}(t)\,\mathrm{mean}\,\|\hat q - q\|^2$$ with q the measured quantity: SiT's L_v for
    `Matching(path)` (arXiv 2401.08740, eq. 6), L_s for `Matching(path, Score)` (eq. 7), L_s weighted by lambda^2 for
    `Matching(path, Score, measure=Velocity)` (eq. 46), JiT's loss for `Matching(path, Data, measure=Velocity)`.
    `measure` is `predict` unless given, except that scores are measured as noise. All four `predict` with one `measure`
    give the same loss for the same field.

    Where the two differ, the factor between them may be infinite at an end of [0, 1]: draw times inside.

    Raises:
        ValueError: `predict` or `measure` is no quantity.
    """

    path: Path
    predict: type[Quantity] = Velocity
    measure: type[Quantity] | None = None
    weight: Weight | None = None

    def __post_init__(self) -> None:
        for name, quantity in (("predict", self.predict), ("measure", self.measure)):
            if not (hasattr(quantity, "to_velocity") or (name == "measure" and quantity is None)):
                raise ValueError(f"{name} must be Velocity, Noise, Score or Data, the class itself, got {quantity!r}")

    def __call__(self, model: Field, x: Tensor, eps: Tensor, t: Tensor, /) -> Tensor:
        """Return the loss of each sample, (B,), the mean over all other dimensions, in float32 at least.

        The model is asked at states of x's dtype and at times of that dtype or float32, whichever is wider.

        Args:
            model: the network as a field; labels are bound to it beforehand.
            x: data, (B, *).
            eps: noise, (B, *).
            t: times, (B,).

        Raises:
            ValueError: shapes that do not fit one another.
        """
        if t.shape != x.shape[:1]:
            raise ValueError(f"t must have shape ({len(x)},) as x has {len(x)} rows, got {tuple(t.shape)}")
        t = wide(t)
        output = asked(model, self.path.mix(x, eps, t), t, x.dtype)
        if output.shape != x.shape:
            raise ValueError(f"the model must return x's shape {tuple(x.shape)}, got {tuple(output.shape)}")
        error = self.predict.residual(self.path, output, wide(x), wide(eps), t)
        loss = mean_of_rows(error.square())
        unit, measure = self.predict.unit(), self.measure or self.predict.unit()
        if measure is not unit:
            loss = loss * (measure.error_rate(self.path, t) / unit.error_rate(self.path, t)) ** 2
        return loss if self.weight is None else self.weight(t) * loss

    def field(self, model: Field, /) -> Field:
        """Return the velocity that the network stands for."""
        return PredictedVelocity(model, partial(self.predict.to_velocity, self.path))
