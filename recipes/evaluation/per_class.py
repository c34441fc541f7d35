"""Metrics of each class."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .compute_metrics import ReferenceComparison, has_wanted_class
from .feature_statistics import FeatureStatistics


def per_class(
    samples: FeatureStatistics, comparison: ReferenceComparison, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the metrics of each class, over the images whose features are stored; none if there are no classes.

    `distance` is the distance between the mean features of the samples and of the reference images of the class. It
    does not need many images. `real` is the same for training images, if there are any. `wanted` is the fraction of
    samples of the class whose nearest reference image is of the class.
    """
    reference, training = comparison.reference, comparison.training
    if samples.labels is None or reference.labels is None or not len(reference.labels):
        return []
    correct = has_wanted_class(samples, reference)
    rows = []
    for label, name in enumerate(classes):
        selected = samples.labels == label
        row = {"class": name, "samples": int(selected.sum()), "reference": int((reference.labels == label).sum())}
        row["wanted"] = float(correct[selected].double().mean()) if selected.any() else None
        row["distance"] = _distance(_mean(samples, label), _mean(reference, label))
        row["real"] = _distance(_mean(training, label), _mean(reference, label)) if training else None
        rows.append(row)
    return rows


def _mean(images: FeatureStatistics, label: int) -> Tensor | None:
    assert images.labels is not None
    selected = images.labels == label
    return images.features[selected].double().mean(0) if selected.any() else None


def _distance(one: Tensor | None, other: Tensor | None) -> float | None:
    return None if one is None or other is None else float(torch.linalg.vector_norm(one - other))
