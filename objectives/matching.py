"""Flow matching, score matching, and noise or data prediction: regression of one quantity along a path."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from .converted_output import ConvertedOutput
from .kinds_of_paths import check_from_noise
from .precision import call_model, per_sample_mean, upcast
from .protocols import Field, Path, Weight
from .quantities import Quantity, Velocity


@dataclass(frozen=True)
class Matching:
    r"""The squared error in quantity `measure` of a network that predicts quantity `predict`, times `weight(t)`.

    $$\ell = \mathrm{weight}(t)\,\mathrm{mean}\,\|\hat q - q\|^2,$$ where q is the quantity `measure`. Examples:

    - `Matching(path)`: SiT's L_v (arXiv 2401.08740, eq. 6);
    - `Matching(path, Score)`: SiT's L_s (eq. 7);
    - `Matching(path, Score, measure=Velocity)`: L_s weighted by lambda^2 (eq. 46);
    - `Matching(path, Data, measure=Velocity)`: JiT's loss.

    With the same `measure`, all four `predict` give the same loss for the same field. If `measure` differs from
    `predict`, the conversion may be infinite at t = 0 or t = 1: draw times inside (0, 1).

    Args:
        path: the interpolant.
        predict: the output of the network: `Velocity`, `Noise`, `Score` or `Data`.
        measure: the quantity in which the error is measured. Default: `predict`, or `Noise` for scores.
        weight: a function of times (B,) to weights (B,). Default: 1.

    Raises:
        ValueError: `predict` or `measure` is not a quantity, or the path is two-sided.
    """

    path: Path
    predict: type[Quantity] = Velocity
    measure: type[Quantity] | None = None
    weight: Weight | None = None

    def __post_init__(self) -> None:
        check_from_noise(self.path, "Matching")
        for name, quantity in (("predict", self.predict), ("measure", self.measure)):
            if not (hasattr(quantity, "to_velocity") or (name == "measure" and quantity is None)):
                raise ValueError(f"{name} must be Velocity, Noise, Score or Data, the class itself, got {quantity!r}")

    def __call__(self, model: Field, x: Tensor, eps: Tensor, t: Tensor, /) -> Tensor:
        """Return the loss of each sample, (B,), the mean over all other dimensions, in float32 at least.

        The model is evaluated at states of x's dtype and at times of that dtype or float32, whichever is wider.

        Args:
            model: the network as a field. Bind labels to it, e.g. by `functools.partial(network, y=labels)`.
            x: data, (B, *).
            eps: noise, (B, *).
            t: times, (B,).

        Raises:
            ValueError: shapes do not match.
        """
        if t.shape != x.shape[:1]:
            raise ValueError(f"t must have shape ({len(x)},) as x has {len(x)} rows, got {tuple(t.shape)}")
        t = upcast(t)
        output = call_model(model, self.path.mix(x, eps, t), t, x.dtype)
        if output.shape != x.shape:
            raise ValueError(f"the model must return x's shape {tuple(x.shape)}, got {tuple(output.shape)}")
        error = self.predict.residual(self.path, output, upcast(x), upcast(eps), t)
        loss = per_sample_mean(error.square())
        unit, measure = self.predict.unit(), self.measure or self.predict.unit()
        if measure is not unit:
            loss = loss * (measure.error_rate(self.path, t) / unit.error_rate(self.path, t)) ** 2
        return loss if self.weight is None else self.weight(t) * loss

    def field(self, model: Field, /) -> Field:
        """Return the velocity field of the model's prediction."""
        return ConvertedOutput(model, partial(self.predict.to_velocity, self.path))
