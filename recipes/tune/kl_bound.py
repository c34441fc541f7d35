r"""The bound on KL(data | samples) of each w, by which a w could be chosen without sampling.

For the exact SDE of a learned velocity whose squared error at time t is $L_t$, with $w_{KL} = 2\lambda\sigma$ (SiT,
arXiv 2401.08740, sec. 2.4 and appendix A; by Girsanov's theorem, as the drift errs by $(1 + w/w_{KL})$ times the error
of the velocity),

$$\mathrm{KL}(\text{data}\,|\,\text{samples}) \le
  \frac12\int\frac{1}{w}\Big(1 + \frac{w}{w_{KL}}\Big)^2 L_t\,dt.$$

The bound needs the excess of $L_t$ over the best velocity. What can be measured, as for `KLEta`, is the loss, which
also contains the variance of the velocity given the state. With the loss, the integral is still a bound. It is looser
by a factor that depends on w, so that the order of the w may differ.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata

from sitkit.interpolants import Interpolant
from sitkit.objectives import LossCurve
from sitkit.samplers import KL, Diffusion

from ..study.statistics import SeedValues, difference

MESH = 4000
LEAST = 3
"""The fewest diffusions that are ranked."""


def kl_bound(w: Diffusion, path: Interpolant, curve: LossCurve) -> float:
    """Return the bound in nats, of the interval between the first and the last time of the curve.

    Outside it L_t is unknown. With a loss that is not 0 at the data, the integral to the end is infinite for every w
    that vanishes there.

    Args:
        w: the diffusion coefficient, positive between those times.
        path: the path of training.
        curve: L_t of the velocity, summed over dimensions.
    """
    low, high = curve.times[0], curve.times[-1]
    t = low + (high - low) * (torch.arange(MESH, dtype=torch.float64) + 0.5) / MESH
    at = torch.as_tensor(w(t), dtype=torch.float64)
    integrand = (1 + at / KL(path)(t)) ** 2 / at * curve(t) / 2
    return float(integrand.mean() * (high - low))


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Spearman's correlation of two lists; nan if all values of one are equal."""
    if min(len(set(one)), len(set(other))) < 2:
        return math.nan
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


@dataclass(frozen=True)
class DiffusionBound:
    """A diffusion coefficient: its name, its bound (inf for the ODE, which has none), and its metric by seed."""

    name: str
    bound: float
    measured: SeedValues


@dataclass(frozen=True)
class RankAgreement:
    """Whether bounds order diffusions like measurements.

    `pairs` counts the pairs that differ significantly over the draws; in `right` of them the bounds have their order.
    """

    correlation: float
    pairs: int
    right: int
    sentence: str


def judge(found: Sequence[DiffusionBound]) -> RankAgreement:
    """Return whether bounds order diffusions like measurements."""
    if len(found) < LEAST:
        return RankAgreement(math.nan, 0, 0, f"{len(found)} w are too few to be ranked by the KL bound.")
    correlation = rank_correlation([one.bound for one in found], [one.measured.distance.value for one in found])
    pairs = right = 0
    for one, other in itertools.combinations(found, 2):
        apart = difference(one.measured.distances, other.measured.distances)
        if apart is not None and apart.significant and one.bound != other.bound:
            pairs += 1
            right += (one.bound < other.bound) == (apart.value < 0)
    if not pairs:
        text = "No pair of w differs significantly over these draws, so they do not test the order by the KL bound."
    else:
        how = "correctly" if right == pairs else "mostly correctly" if right > 0.75 * pairs else ""
        text = f"The KL bound ranks the w {how}" if how else "The KL bound does not rank the w correctly"
        text += f": of {pairs} pairs that differ significantly over the draws, it has {right} in the right order."
    lowest, best = min(found, key=lambda one: one.bound), min(found, key=lambda one: one.measured.distance.value)
    firsts = (
        f"Both have {best.name} first."
        if best is lowest
        else f"The bound has {lowest.name} first, and the measurement has {best.name}."
    )
    return RankAgreement(correlation, pairs, right, f"{text} The rank correlation is {correlation:.2f}. {firsts}")
