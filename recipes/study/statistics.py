"""Statistics over a few seeds: means, their standard errors, and which differences are significant.

Two rows are compared seed by seed: equal seeds share the order of the training data, the initial weights and the
initial noise. A mean difference is significant beyond two standard errors, s / sqrt(n). With few seeds this is weak
evidence: of truly equal rows, 18 in 100 are called different with three seeds, and 5 with sixty (`false_rate`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scipy.special import stdtr

BEYOND = 2.0
"""Standard errors beyond which a difference is significant."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and its standard error, which is None with a single seed."""

    value: float
    error: float | None

    @classmethod
    def of(cls, values: Mapping[int, float]) -> "Estimate":
        """Return the mean of values by seed, of which there is at least one."""
        count = len(values)
        mean = math.fsum(values.values()) / count
        if count < 2:
            return cls(mean, None)
        variance = math.fsum((value - mean) ** 2 for value in values.values()) / (count - 1)
        return cls(mean, math.sqrt(variance / count))

    @property
    def significant(self) -> bool:
        """Whether it differs significantly from 0."""
        return self.error is not None and abs(self.value) > BEYOND * self.error

    def __str__(self) -> str:
        """Return the mean and its standard error, with two significant digits of the error."""
        if not self.error:
            return f"{self.value:.4g}" + (" ± 0" if self.error == 0 else "")
        decimals = max(0, 1 - math.floor(math.log10(self.error)))
        return f"{self.value:.{decimals}f} ± {self.error:.{decimals}f}"

    def describe(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"mean": self.value, "standard_error": self.error}


@dataclass(frozen=True)
class SeedValues:
    """The values of a metric by seed, and its value for real images, which is None if unknown."""

    values: Mapping[int, float]
    real: float | None

    @property
    def mean(self) -> Estimate:
        """The mean over seeds."""
        return Estimate.of(self.values)

    @property
    def distances(self) -> dict[int, float]:
        """The distance from the value of real images (or from 0), by seed."""
        return {seed: abs(value - (self.real or 0.0)) for seed, value in self.values.items()}

    @property
    def distance(self) -> Estimate:
        """The mean of the distances."""
        return Estimate.of(self.distances)


def difference(one: Mapping[int, float], other: Mapping[int, float]) -> Estimate | None:
    """Return the mean difference of values by seed, over the seeds that both have; None if there are none."""
    common = {seed: one[seed] - other[seed] for seed in one if seed in other}
    return Estimate.of(common) if common else None


def false_rate(seeds: int) -> float:
    """Return how often truly equal rows are called different, by Student's t of n - 1 degrees of freedom."""
    return 2 * float(stdtr(seeds - 1, -BEYOND)) if seeds > 1 else 0.0
