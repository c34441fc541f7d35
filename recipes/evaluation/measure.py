"""The numbers of samples: how they compare with a reference, and real images with the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..features import Extractor
from ..metrics import frechet_distance, kernel_distance, nearer_share, nearest, precision_recall
from ..support.errors import UserError
from ..support.progress import progress
from ..support.random_streams import Permutation
from .feature_statistics import FeatureStatistics, Gaussian

LEAST = 10
"""Samples, and images of a reference, below which nothing is measured."""
NEIGHBOUR = 3
"""Which neighbour gives the radius of precision and recall."""


@dataclass(frozen=True)
class MetricValue:
    """A number of one set of images, and by how much it is too large for there being so few, where that is known."""

    value: float
    bias: float | None = None


@dataclass(frozen=True)
class Metric:
    """A number with what it means: its values, one a draw of samples, and that of real images, if there are any."""

    name: str
    meaning: str
    values: Sequence[MetricValue]
    real: float | None

    def describe(self) -> dict[str, Any]:
        """Return it as plain values: mean, and standard deviation, over draws; the bias is at most the mean."""
        values = [one.value for one in self.values]
        biases = [one.bias for one in self.values if one.bias is not None]
        mean = sum(values) / len(values)
        return {
            "mean": mean,
            "spread": float(torch.tensor(values, dtype=torch.float64).std()) if len(values) > 1 else None,
            "values": values,
            "bias": min(sum(biases) / len(biases), mean) if biases else None,
            "real": self.real,
            "meaning": self.meaning,
        }


@dataclass(frozen=True, eq=False)
class ReferenceComparison:
    """What samples are compared with.

    Args:
        extractor: what made the features, and says what numbers are called.
        reference: the images to compare with.
        training: those that a network was trained on, if they are at hand, as real images beside the samples.
        device: where to find neighbours.
    """

    extractor: Extractor
    reference: FeatureStatistics
    training: FeatureStatistics | None
    device: torch.device

    def check(self, samples: FeatureStatistics) -> None:
        """Raise a problem unless samples can be compared."""
        for what, one in (("samples", samples), ("images of the reference", self.reference)):
            if one.count is not None and one.count < LEAST:
                raise UserError(f"there are {one.count} {what}, and numbers take {LEAST} or more")
        size, own = len(samples.pooled[0]), len(self.reference.pooled[0])
        if size != own:
            raise UserError(
                f"samples have {size} features, and the reference has {own}: it is of other features or images"
            )


def measure(draws: Sequence[FeatureStatistics], against: ReferenceComparison) -> list[Metric]:
    """Return the numbers of samples that were drawn several times.

    Raises:
        UserError: they cannot be compared with the reference.
    """
    for samples in draws:
        against.check(samples)
    found = []
    numbers = _numbers(draws[0], against)
    with progress("measuring", len(numbers) * len(draws), unit="numbers") as advance:
        for name, meaning, compute in numbers:
            values = []
            for samples in draws:
                values.append(compute(samples))
                advance(1)
            real = compute(against.training).value if against.training and name not in ONLY_SAMPLES else None
            found.append(Metric(name, meaning, values, real))
    return [_with_own_floor(number, against) for number in found]


NEARER, WANTED = "share nearer to training than held-out", "share of the wanted class"
ONLY_SAMPLES = (NEARER, WANTED)

Compute = Callable[[FeatureStatistics], MetricValue]


def _numbers(samples: FeatureStatistics, against: ReferenceComparison) -> list[tuple[str, str, Compute]]:
    """Return the numbers that can be computed: name, meaning, and how."""
    reference, extractor, device = against.reference, against.extractor, against.device
    neighbours = len(reference.features) > NEIGHBOUR
    numbers: list[tuple[str, str, Compute]] = [
        (extractor.frechet, f"of the features of {extractor.name}", lambda one: _frechet(one, reference))
    ]
    if samples.spatial and reference.spatial:
        numbers.append(("sFID", "as FID, of spatial features", lambda one: _spatial(one, reference)))
    if samples.score is not None and extractor.frechet == "FID":
        numbers.append(("Inception score", "the mean over splits of 5000", lambda one: MetricValue(one.score or 0.0)))
    if neighbours:
        among = f"among {len(reference.features)} images of the reference and {len(samples.features)} samples"
        precise = _Neighbours(reference, device)
        numbers += [
            ("precision", f"k = {NEIGHBOUR}, {among}", lambda one: MetricValue(precise(one)[0])),
            ("recall", f"k = {NEIGHBOUR}, {among}", lambda one: MetricValue(precise(one)[1])),
            (extractor.kernel, f"unbiased, {among}", lambda one: MetricValue(_kernel(one, reference, device))),
        ]
    if against.training and len(against.training.features) > 1 and neighbours:
        training = against.training
        meaning = "in features, among as many images of each; of real images that are neither: a half"
        numbers.append((NEARER, meaning, lambda one: MetricValue(_nearer(one, training, reference, device))))
    if samples.labels is not None and reference.labels is not None and len(reference.labels):
        meaning = "the share of samples whose nearest image of the reference is of the class that was asked for"
        numbers.append((WANTED, meaning, lambda one: MetricValue(float(wanted(one, reference).double().mean()))))
    return numbers


def _frechet(one: FeatureStatistics, reference: FeatureStatistics) -> MetricValue:
    """Return the distance, and how much of it is due to there being so few samples.

    It falls as 1 / N to what it is for many (Chong and Forsyth, arXiv 1911.07023), so that the half of it which half as
    many samples have more is what N have too much.
    """
    whole = frechet_distance(*one.pooled, *reference.pooled)
    if one.halves is None:
        return MetricValue(whole)
    halves = [frechet_distance(*half, *reference.pooled) for half in one.halves]
    return MetricValue(whole, max(0.0, sum(halves) / 2 - whole))


def _spatial(one: FeatureStatistics, reference: FeatureStatistics) -> MetricValue:
    if one.spatial is None or reference.spatial is None:
        return MetricValue(float("nan"))
    return MetricValue(_distance(one.spatial, reference.spatial))


def _distance(one: Gaussian, other: Gaussian) -> float:
    return frechet_distance(*one, *other)


class _Neighbours:
    """Precision and recall, which are computed together, of the set that was asked for last."""

    def __init__(self, reference: FeatureStatistics, device: torch.device):
        self.features = reference.features.to(device)
        self.last: tuple[FeatureStatistics, tuple[float, float]] | None = None

    def __call__(self, one: FeatureStatistics) -> tuple[float, float]:
        if self.last is None or self.last[0] is not one:
            self.last = one, precision_recall(self.features, one.features.to(self.features.device), NEIGHBOUR)
        return self.last[1]


def _kernel(one: FeatureStatistics, reference: FeatureStatistics, device: torch.device) -> float:
    return kernel_distance(reference.features.to(device), one.features.to(device))


def _nearer(
    one: FeatureStatistics, training: FeatureStatistics, reference: FeatureStatistics, device: torch.device
) -> float:
    """Return the share of samples nearer to training images than to as many of the reference."""
    count = min(len(training.features), len(reference.features))
    sets = [
        features[Permutation(0, len(features))(torch.arange(count))]
        for features in (training.features, reference.features)
    ]
    return nearer_share(one.features.to(device), *(features.to(device) for features in sets))


def wanted(one: FeatureStatistics, reference: FeatureStatistics) -> Tensor:
    """Return for which images the nearest image of the reference is of their class, (K,) bool."""
    assert one.labels is not None
    assert reference.labels is not None
    return reference.labels[nearest(one.features, reference.features)] == one.labels


def wanted_of_real(reference: FeatureStatistics) -> Tensor:
    """Return for which images of the reference the nearest other one is of their class, (K,) bool."""
    assert reference.labels is not None
    found = []
    for part in torch.split(torch.arange(len(reference.features)), 1024):
        distances = torch.cdist(reference.features[part], reference.features)
        distances[torch.arange(len(part)), part] = torch.inf
        found.append(reference.labels[distances.argmin(1)] == reference.labels[part])
    return torch.cat(found)


def _with_own_floor(number: Metric, against: ReferenceComparison) -> Metric:
    """Return a number with that of real images where it is known without training images."""
    real = number.real
    if number.name == NEARER:
        real = 0.5
    elif number.name == WANTED:
        real = float(wanted_of_real(against.reference).double().mean())
    return Metric(number.name, number.meaning, number.values, real)
