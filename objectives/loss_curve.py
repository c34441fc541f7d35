"""The squared error of a trained velocity as a function of time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .kinds_of_paths import check_from_noise
from .precision import call_model
from .protocols import Field, Path


@dataclass(frozen=True)
class LossCurve:
    """The loss L_t as a function of t: linear between the given times and constant outside of them. `KLEta` uses it.

    Raises:
        ValueError: times do not increase, or there is not exactly one finite loss >= 0 per time.
    """

    times: Sequence[float]
    losses: Sequence[float]

    def __post_init__(self) -> None:
        increasing = all(a < b for a, b in zip(self.times, self.times[1:], strict=False))
        finite = all(math.isfinite(value) for value in (*self.times, *self.losses))
        if not self.times or not (increasing and finite) or len(self.times) != len(self.losses) or min(self.losses) < 0:
            raise ValueError("a loss curve needs increasing times and a loss >= 0 for each, all finite")

    def __call__(self, t: Tensor, /) -> Tensor:
        """Return L_t, of t's shape and dtype."""
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

        The loss contains the conditional variance of the velocity given the state, as in the paper (SiT,
        arXiv 2401.08740, sec. 2.4). All times use the same x and eps, which makes the curve smooth. NFE: one per time.

        Args:
            velocity: the trained velocity, `objective.field(network)`.
            path: the path of its training.
            x: data, (B, *).
            eps: noise, (B, *).
            times: increasing times, (N,), at which path and velocity are finite.

        Raises:
            ValueError: the path is two-sided, there are no data, or a loss is not finite.
        """
        check_from_noise(path, "LossCurve")
        if not len(x):
            raise ValueError(f"a loss curve needs at least one sample of data, got x of shape {tuple(x.shape)}")
        losses = []
        for t in times:
            rows = t.to(x.device).expand(len(x))
            error = call_model(velocity, path.mix(x, eps, rows), rows, x.dtype) - path.velocity(x, eps, rows)
            losses.append(float(error.square().reshape(len(x), math.prod(x.shape[1:])).sum(1).mean()))
            if not losses[-1] < float("inf"):
                raise ValueError(f"the loss at t = {float(t)} is {losses[-1]}: measure at times inside (0, 1)")
        return cls(times.tolist(), losses)


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Return values (N,) at indices of any shape. Unlike indexing, it also works inside vmap."""
    return values.index_select(0, index.reshape(-1)).reshape(index.shape)
