"""The metrics of a report: of samples and of real images, each compared with a reference."""

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

MIN_IMAGES = 10
"""The least number of samples, and of images of a reference."""
NEIGHBOUR = 3
"""The neighbour that defines the radius of precision and recall."""


@dataclass(frozen=True)
class MetricValue:
    """A metric of one set of images, and its bias due to their finite number, if that is known."""

    value: float
    bias: float | None = None


@dataclass(frozen=True)
class Metric:
    """A metric with its meaning, its values for each set of samples, and its value for real images, if there is one."""

    name: str
    meaning: str
    values: Sequence[MetricValue]
    real: float | None

    def describe(self) -> dict[str, Any]:
        """Return plain values: mean and standard deviation over draws, all values, and the bias, at most the mean."""
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
        extractor: the extractor of the features, which names the metrics.
        reference: the images to compare with.
        training: the training images, as real images beside the samples, if they are available.
        device: where to compute neighbours.
    """

    extractor: Extractor
    reference: FeatureStatistics
    training: FeatureStatistics | None
    device: torch.device

    def check(self, samples: FeatureStatistics) -> None:
        """Raise a `UserError` unless samples can be compared with the reference."""
        for what, one in (("samples", samples), ("images of the reference", self.reference)):
            if one.count is not None and one.count < MIN_IMAGES:
                raise UserError(f"there are {one.count} {what}: metrics need {MIN_IMAGES} or more")
        size, own = len(samples.pooled[0]), len(self.reference.pooled[0])
        if size != own:
            raise UserError(
                f"samples have {size} features, but the reference has {own}: it has another extractor or image size"
            )


def compute_metrics(draws: Sequence[FeatureStatistics], comparison: ReferenceComparison) -> list[Metric]:
    """Return the metrics of several sets of samples.

    Raises:
        UserError: they cannot be compared with the reference.
    """
    for samples in draws:
        comparison.check(samples)
    found = []
    metrics = _available_metrics(draws[0], comparison)
    with progress("metrics", len(metrics) * len(draws), unit="metrics") as advance:
        for name, meaning, compute in metrics:
            values = []
            for samples in draws:
                values.append(compute(samples))
                advance(1)
            real = compute(comparison.training).value if comparison.training and name not in ONLY_SAMPLES else None
            found.append(Metric(name, meaning, values, real))
    return [_with_real_value(metric, comparison) for metric in found]


NEARER, WANTED = "share nearer to training than held-out", "share of the wanted class"
ONLY_SAMPLES = (NEARER, WANTED)

Compute = Callable[[FeatureStatistics], MetricValue]


def _available_metrics(samples: FeatureStatistics, comparison: ReferenceComparison) -> list[tuple[str, str, Compute]]:
    """Return the metrics that can be computed: name, meaning, and function."""
    reference, extractor, device = comparison.reference, comparison.extractor, comparison.device
    neighbours = len(reference.features) > NEIGHBOUR
    metrics: list[tuple[str, str, Compute]] = [
        (extractor.frechet, f"of the features of {extractor.name}", lambda one: _frechet(one, reference))
    ]
    if samples.spatial and reference.spatial:
        metrics.append(("sFID", "as FID, of spatial features", lambda one: _spatial(one, reference)))
    if samples.score is not None and extractor.frechet == "FID":
        metrics.append(("Inception score", "the mean over splits of 5000", lambda one: MetricValue(one.score or 0.0)))
    if neighbours:
        among = f"among {len(reference.features)} reference images and {len(samples.features)} samples"
        precise = _Neighbours(reference, device)
        metrics += [
            ("precision", f"k = {NEIGHBOUR}, {among}", lambda one: MetricValue(precise(one)[0])),
            ("recall", f"k = {NEIGHBOUR}, {among}", lambda one: MetricValue(precise(one)[1])),
            (extractor.kernel, f"unbiased, {among}", lambda one: MetricValue(_kernel(one, reference, device))),
        ]
    if comparison.training and len(comparison.training.features) > 1 and neighbours:
        training = comparison.training
        meaning = (
            "the fraction of samples whose nearest image by features is a training image, among equally many training "
            "and held-out images; 0.5 for new real images"
        )
        metrics.append((NEARER, meaning, lambda one: MetricValue(_nearer(one, training, reference, device))))
    if samples.labels is not None and reference.labels is not None and len(reference.labels):
        meaning = "the fraction of samples whose nearest reference image is of the requested class"
        metrics.append(
            (WANTED, meaning, lambda one: MetricValue(float(has_wanted_class(one, reference).double().mean())))
        )
    return metrics


def _frechet(one: FeatureStatistics, reference: FeatureStatistics) -> MetricValue:
    """Return the Frechet distance, and its bias due to the finite number of samples N.

    The bias falls as 1 / N (Chong and Forsyth, arXiv 1911.07023). Half as many samples have twice the bias, so the bias
    is the distance of N / 2 samples minus that of N.
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
    """Precision and recall, computed together, with the values of the last set stored."""

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
    """Return the fraction of samples that are nearer to training images than to equally many reference images."""
    count = min(len(training.features), len(reference.features))
    sets = [
        features[Permutation(0, len(features))(torch.arange(count))]
        for features in (training.features, reference.features)
    ]
    return nearer_share(one.features.to(device), *(features.to(device) for features in sets))


def has_wanted_class(one: FeatureStatistics, reference: FeatureStatistics) -> Tensor:
    """Return whether the nearest reference image of each image is of its class, (K,) bool."""
    assert one.labels is not None
    assert reference.labels is not None
    return reference.labels[nearest(one.features, reference.features)] == one.labels


def real_has_wanted_class(reference: FeatureStatistics) -> Tensor:
    """Return whether the nearest other reference image of each reference image is of its class, (K,) bool."""
    assert reference.labels is not None
    found = []
    for part in torch.split(torch.arange(len(reference.features)), 1024):
        distances = torch.cdist(reference.features[part], reference.features)
        distances[torch.arange(len(part)), part] = torch.inf
        found.append(reference.labels[distances.argmin(1)] == reference.labels[part])
    return torch.cat(found)


def _with_real_value(metric: Metric, comparison: ReferenceComparison) -> Metric:
    """Return a metric with its value for real images, if that is known without training images."""
    real = metric.real
    if metric.name == NEARER:
        real = 0.5
    elif metric.name == WANTED:
        real = float(real_has_wanted_class(comparison.reference).double().mean())
    return Metric(metric.name, metric.meaning, metric.values, real)
