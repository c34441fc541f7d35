"""Numbers of each class."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .feature_statistics import FeatureStatistics
from .measure import ReferenceComparison, wanted


def per_class(samples: FeatureStatistics, against: ReferenceComparison, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return what each class has, of the images whose features are kept; nothing if there are no classes.

    `distance` is that of the means of the features of its samples and of its images in the reference, for which there
    need not be many; `real`, that of training images, if they are at hand. `wanted` is the share of its samples whose
    nearest image of the reference is of the class.
    """
    reference, training = against.reference, against.training
    if samples.labels is None or reference.labels is None or not len(reference.labels):
        return []
    right = wanted(samples, reference)
    rows = []
    for label, name in enumerate(classes):
        own = samples.labels == label
        row = {"class": name, "samples": int(own.sum()), "reference": int((reference.labels == label).sum())}
        row["wanted"] = float(right[own].double().mean()) if own.any() else None
        row["distance"] = _distance(_mean(samples, label), _mean(reference, label))
        row["real"] = _distance(_mean(training, label), _mean(reference, label)) if training else None
        rows.append(row)
    return rows


def _mean(images: FeatureStatistics, label: int) -> Tensor | None:
    assert images.labels is not None
    own = images.labels == label
    return images.features[own].double().mean(0) if own.any() else None


def _distance(one: Tensor | None, other: Tensor | None) -> float | None:
    return None if one is None or other is None else float(torch.linalg.vector_norm(one - other))
