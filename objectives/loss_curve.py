"""How large the error of a trained velocity is, time by time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .precision import asked
from .protocols import Field, Path


@dataclass(frozen=True)
class LossCurve:
    """t -> L_t: linear between measured times, constant beyond them; it is what `KLEta` asks for.

    Raises:
        ValueError: times that do not rise, or not one finite loss >= 0 for each.
    """

    times: Sequence[float]
    losses: Sequence[float]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.times, self.times[1:], strict=False))
        finite = all(math.isfinite(value) for value in (*self.times, *self.losses))
        if not self.times or not (rising and finite) or len(self.times) != len(self.losses) or min(self.losses) < 0:
            raise ValueError("a loss curve has rising times and a loss >= 0 for each of them, all finite")

    def __call__(self, t: Tensor, /) -> Tensor:
        """Return L_t, of t's shape and precision."""
        times, losses = (torch.tensor(v, dtype=torch.float64, device=t.device) for v in (self.times, self.losses))
        if len(times) == 1:
            return losses.expand(t.shape).to(t.dtype)
        t_inside = t.double().clamp(self.times[0], self.times[-1])
        left = (t_inside[..., None] >= times[1:-1]).sum(-1)
        (start, low), (end, high) = ((_take(times, n), _take(losses, n)) for n in (left, left + 1))
        return torch.lerp(low, high, (t_inside - start) / (end - start)).to(t.dtype)

    @classmethod
    @torch.no_grad()
    def measure(cls, velocity: Field, path: Path, x: Tensor, eps: Tensor, times: Tensor) -> "LossCurve":
        r"""Return the curve of $L_t = E\,\|v(x_t, t) - \dot\alpha x - \dot\sigma\epsilon\|^2$, summed over dimensions.

        It contains the variance of the velocity given the state, as the paper's does (SiT, arXiv 2401.08740, sec. 2.4).
        One call of the velocity for each time; x and eps are the same at all of them, which keeps the curve smooth.

        Args:
            velocity: of the trained network: `objective.field(network)`.
            path: the path of its training.
            x: data, (B, *).
            eps: noise, (B, *).
            times: where to measure, (N,), rising, at which path and velocity are finite.

        Raises:
            ValueError: there are no data, or a loss is not finite.
        """
        if not len(x):
            raise ValueError(f"a loss curve is measured on data, got x of shape {tuple(x.shape)}")
        losses = []
        for t in times:
            rows = t.to(x.device).expand(len(x))
            error = asked(velocity, path.mix(x, eps, rows), rows, x.dtype) - path.velocity(x, eps, rows)
            losses.append(float(error.square().reshape(len(x), math.prod(x.shape[1:])).sum(1).mean()))
            if not losses[-1] < float("inf"):
                raise ValueError(f"the loss at t = {float(t)} is {losses[-1]}: measure at times inside (0, 1)")
        return cls(times.tolist(), losses)


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Return values (N,) at an index of any shape, also inside of vmap."""
    return values.index_select(0, index.reshape(-1)).reshape(index.shape)
