"""Which times are trained on: functions of uniform numbers (B,) in [0, 1) to times (B,).

Randomness enters as the argument, so the same times come out on however many processes. They compose:
`Shifted(Stratified(LogitNormal()), shift=2.0)`.
"""

import math
from dataclasses import dataclass, field
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor

from .precision import wide
from .protocols import Times


@dataclass(frozen=True)
class Uniform:
    """All times alike."""

    def __call__(self, uniforms: Tensor, /) -> Tensor:
        """Return the uniform numbers."""
        return uniforms


@dataclass(frozen=True)
class Stratified:
    """One time from each of B equal shares of the distribution, in order: the k-th row's lies in the k-th share.

    Each time by itself is distributed as without, and the mean over a batch varies less, because the loss depends on
    time: on the trained `digits` network the variance of the mean loss of 128 images fell from 2.9e-4 to 1.5e-4. Hand
    it the uniforms of the global batch.

    Raises:
        ValueError: the times are stratified already.
    """

    times: Times = Uniform()

    def __post_init__(self) -> None:
        inner: object = self.times
        while inner is not None:
            if isinstance(inner, Stratified):
                raise ValueError(f"{self.times} are stratified already")
            inner = getattr(inner, "times", None)

    def __call__(self, uniforms: Tensor, /) -> Tensor:
        """Return times, rising with the row."""
        shares = torch.arange(len(uniforms), dtype=uniforms.dtype, device=uniforms.device)
        below_one = 1 - torch.finfo(uniforms.dtype).eps / 2
        return self.times(((shares + uniforms) / len(uniforms)).clamp(max=below_one))


@dataclass(frozen=True)
class LogitNormal:
    """sigmoid(mean + std z) with a standard normal z: the middle more often than the ends (SD3, arXiv 2403.03206, eq.
    19).

    Raises:
        ValueError: std is not positive.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not (self.std > 0 and math.isfinite(self.mean) and math.isfinite(self.std)):
            raise ValueError(f"LogitNormal takes a finite mean and std > 0, got {self.mean} and {self.std}")

    def __call__(self, uniforms: Tensor, /) -> Tensor:
        """Return the times."""
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(wide(uniforms)))


@dataclass(frozen=True)
class Shifted:
    """t' = t / (t + s (1 - t)): for s > 1 towards the noise, as in `samplers.grids.shifted` and in SD3.

    The ratio of noise to signal of the straight path is multiplied by s. With sigma = 1 - t it is SD3's
    sigma' = s sigma / (1 + (s - 1) sigma) (arXiv 2403.03206, eq. 23). Larger images, whose neighbouring pixels average
    the noise away, ask for larger s.

    Args:
        times: those that are shifted.
        shift: s, 1 leaves them as they are.
        towards: says in stored recipes where shifts above 1 lead; before it was there, they led to the data.

    Raises:
        ValueError: the shift is not positive.
    """

    times: Times = Uniform()
    shift: float = 1.0
    towards: Literal["noise"] = field(default="noise", repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.shift < math.inf:
            raise ValueError(f"shift must be positive and finite, got {self.shift}")
        if self.towards != "noise":
            raise ValueError(f"a shift above 1 leads towards the noise, got towards = {self.towards!r}: give 1 / shift")

    def __call__(self, uniforms: Tensor, /) -> Tensor:
        """Return the shifted times."""
        t = self.times(uniforms)
        return t / (t + self.shift * (1 - t))


@dataclass(frozen=True)
class Grid:
    """The times k / steps, k = 0 ... steps - 1, alike: those of a chain of so many steps, as `DDPM` is.

    Raises:
        ValueError: no steps.
    """

    steps: int = 1000

    def __post_init__(self) -> None:
        if not isinstance(self.steps, Integral) or self.steps < 1:
            raise ValueError(f"steps must be a whole number, at least 1, got {self.steps}")

    def __call__(self, uniforms: Tensor, /) -> Tensor:
        """Return times of the grid."""
        return (uniforms * self.steps).floor() / self.steps
