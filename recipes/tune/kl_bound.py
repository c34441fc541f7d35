r"""The bound on the divergence between data and samples, by which a w could be chosen without any sampling.

With the exact SDE of a learnt velocity, whose squared error at time t is $L_t$, and $w_{KL} = 2\lambda\sigma$ (SiT,
arXiv 2401.08740, sec. 2.4 and appendix A; Girsanov's theorem, for the drift errs by $(1 + w/w_{KL})$ times what the
velocity does)

$$\mathrm{KL}(\text{data}\,|\,\text{samples}) \le
  \frac12\int\frac{1}{w}\Big(1 + \frac{w}{w_{KL}}\Big)^2 L_t\,dt.$$

The $L_t$ that is meant is the excess over the best velocity there is. What can be measured, as for `KLEta`, is the
loss, which contains besides the variance of the velocity given the state. With it the integral is still a bound, looser
by a factor that differs from w to w, so that it may order them otherwise.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from sitkit.interpolants import Interpolant
from sitkit.objectives import LossCurve
from sitkit.samplers import KL, Diffusion

from ..study.statistics import difference

MESH = 4000
LEAST = 3
"""Of how few there is no order to speak of."""


def kl_bound(w: Diffusion, path: Interpolant, curve: LossCurve) -> float:
    """Return the bound in nats, of the part of the way between the first and the last time of the curve.

    Beyond them L_t is unknown; and with a loss that is not 0 at the data the integral to the end is infinite for
    every w that vanishes there.

    Args:
        w: the diffusion coefficient, positive between those times.
        path: that was learnt.
        curve: L_t of its velocity, summed over dimensions.
    """
    low, high = curve.times[0], curve.times[-1]
    t = low + (high - low) * (torch.arange(MESH, dtype=torch.float64) + 0.5) / MESH
    at = torch.as_tensor(w(t), dtype=torch.float64)
    integrand = (1 + at / KL(path)(t)) ** 2 / at * curve(t) / 2
    return float(integrand.mean() * (high - low))


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Spearman's correlation of two lists; nan if one has all values equal."""
    ranks = [torch.tensor(_ranks(values), dtype=torch.float64) for values in (one, other)]
    a, b = (rank - rank.mean() for rank in ranks)
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size else math.nan


def _ranks(values: Sequence[float]) -> list[float]:
    """Return the place of each value among them, the mean place of those that are equal."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) - 1) / 2 for value in values
    ]


@dataclass(frozen=True)
class Bounded:
    """A diffusion: its name, its bound, and how far its samples are from real images, by seed."""

    name: str
    bound: float
    distances: Mapping[int, float]

    @property
    def distance(self) -> float:
        """The mean distance."""
        return math.fsum(self.distances.values()) / len(self.distances)


@dataclass(frozen=True)
class Verdict:
    """Whether bounds order diffusions as measurement does.

    `pairs` are those of which the draws can tell which is better; of these the bound has `right` in the right order.
    """

    correlation: float
    pairs: int
    right: int
    sentence: str


def judge(found: Sequence[Bounded]) -> Verdict:
    """Return whether the bound ranks diffusions rightly."""
    if len(found) < LEAST:
        return Verdict(math.nan, 0, 0, f"Of {len(found)} diffusions there is no order to speak of.")
    correlation = rank_correlation([one.bound for one in found], [one.distance for one in found])
    pairs = right = 0
    for one, other in itertools.combinations(found, 2):
        apart = difference(one.distances, other.distances)
        if apart is not None and apart.beyond and one.bound != other.bound:
            pairs += 1
            right += (one.bound < other.bound) == (apart.value < 0)
    by_bound, best = min(found, key=lambda one: one.bound), min(found, key=lambda one: one.distance)
    if not pairs:
        said = "These draws cannot tell any two apart, and so do not say whether the bound ranks them rightly."
    else:
        how = "rightly" if right == pairs else "rightly for the most part" if right > 0.75 * pairs else ""
        said = f"The bound ranks them {how}" if how else "The bound does not rank them rightly"
        said += f": of {pairs} pairs that the draws can tell apart, it has {right} in the right order."
    same = f"Both have {best.name} first." if best is by_bound else ""
    firsts = same or f"It has {by_bound.name} first, and measurement {best.name}."
    return Verdict(correlation, pairs, right, f"{said} The rank correlation is {correlation:.2f}. {firsts}")
