"""What a few seeds tell of a number: its mean, the error of that, and which differences are ones.

Two rows are compared seed by seed, for equal seeds share their training data's order, their first weights and the noise
that samples start from: of n differences the mean must lie beyond two standard errors, s / sqrt(n). For few seeds that
is a weak word. Of equal rows, 18 in 100 would be called different with three seeds, and 5 with sixty (`false_share`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

BEYOND = 2.0
"""Standard errors beyond which a difference is called one."""


@dataclass(frozen=True)
class Mean:
    """A mean over seeds, and its standard error, None of a single seed."""

    value: float
    error: float | None

    @classmethod
    def of(cls, values: Mapping[int, float]) -> "Mean":
        """Return the mean of values by seed, one at least."""
        count = len(values)
        mean = math.fsum(values.values()) / count
        if count < 2:
            return cls(mean, None)
        variance = math.fsum((value - mean) ** 2 for value in values.values()) / (count - 1)
        return cls(mean, math.sqrt(variance / count))

    @property
    def beyond(self) -> bool:
        """Whether it differs from 0, as far as these seeds tell."""
        return self.error is not None and abs(self.value) > BEYOND * self.error


def difference(one: Mapping[int, float], other: Mapping[int, float]) -> Mean | None:
    """Return the mean of the differences of values by seed, over the seeds that both have; None if there are none."""
    common = {seed: one[seed] - other[seed] for seed in one if seed in other}
    return Mean.of(common) if common else None


def false_share(seeds: int) -> float:
    """Return which share of equal rows is called different: Student's t of n - 1 degrees, beyond two, either side."""
    degrees = seeds - 1
    if degrees < 1:
        return 0.0
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    steps = 2000
    width = BEYOND / steps
    middles = (width * (step + 0.5) for step in range(steps))
    within = width * math.fsum((1 + t * t / degrees) ** (-(degrees + 1) / 2) for t in middles)
    return 1 - 2 * scale * within
