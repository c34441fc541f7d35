"""Metrics of statistics that are known in closed form."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from sitkit.recipes.evaluation.compute_metrics import NEARER, Metric, ReferenceComparison, compute_metrics
from sitkit.recipes.evaluation.feature_statistics import FeatureStatistics
from sitkit.recipes.evaluation.per_class import per_class
from sitkit.recipes.features import Pixels
from sitkit.recipes.metrics import moments, nearer_share


def gaussian(count: int, size: int, seed: int, mean: float = 0.0, labels: Tensor | None = None) -> FeatureStatistics:
    """Return the features of samples of a normal distribution."""
    x = torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean
    halves = (moments(x[::2]), moments(x[1::2]))
    return FeatureStatistics(count, moments(x), None, x.float(), torch.arange(count), labels, halves, None, "")


def exact(size: int) -> FeatureStatistics:
    pooled = torch.zeros(size, dtype=torch.float64), torch.eye(size, dtype=torch.float64)
    nothing = torch.empty(0, size), torch.empty(0, dtype=torch.int64)
    return FeatureStatistics(None, pooled, None, *nothing, None, None, None, "")


def measured(
    samples: list[FeatureStatistics], reference: FeatureStatistics, training: FeatureStatistics | None = None
) -> dict[str, Metric]:
    found = compute_metrics(samples, ReferenceComparison(Pixels(), reference, training, torch.device("cpu")))
    return {number.name: number for number in found}


def test_the_bias_of_few_samples_is_estimated() -> None:
    """For samples of the reference's distribution the whole distance is bias, c / N."""
    for count in (200, 400):
        draws = [gaussian(count, 8, seed) for seed in range(60)]
        number = measured(draws, exact(8))["Frechet distance of pixels"].describe()
        values, biases = np.array(number["values"]), number["bias"]
        assert biases == pytest.approx(values.mean(), rel=0.12)
        shifted = [gaussian(count, 8, seed, mean=1.0) for seed in range(60)]
        other = measured(shifted, exact(8))["Frechet distance of pixels"].describe()
        error = float(np.std(other["values"]) / 60**0.5)
        assert other["mean"] - other["bias"] == pytest.approx(8.0, abs=4 * error)
        assert 0.5 * biases < other["bias"] < 2.5 * biases


def test_the_bias_is_at_most_the_measured_value() -> None:
    """Samples equal to the reference have distance 0, and their halves do not."""
    samples = gaussian(200, 8, 0)
    number = measured([samples], samples)["Frechet distance of pixels"]
    assert number.values[0].bias is not None
    assert number.values[0].bias > 0.01
    described = number.describe()
    assert described["mean"] < 1e-9
    assert described["bias"] <= described["mean"]


def test_the_fraction_nearer_to_training_is_a_half_for_any_number_of_images() -> None:
    reference, training = gaussian(100, 4, 0), gaussian(700, 4, 1)
    samples = gaussian(2000, 4, 2)
    found = measured([samples], reference, training)[NEARER]
    assert found.values[0].value == pytest.approx(0.5, abs=0.08)
    assert found.real == 0.5
    copies = measured([training], reference, training)[NEARER].values[0].value  # of which a seventh are in the subset
    assert copies == pytest.approx(0.5 + 0.5 / 7, abs=0.08)
    same = measured([samples], reference, gaussian(100, 4, 1))[NEARER].values[0].value
    apart = [cdist(samples.features, one.features).min(1) for one in (gaussian(100, 4, 1), reference)]
    assert same == pytest.approx(float(np.mean(apart[0] < apart[1])))
    assert same == nearer_share(samples.features, gaussian(100, 4, 1).features, reference.features)


def test_missing_classes_have_no_metrics() -> None:
    labels = torch.arange(40) % 2
    samples, reference = gaussian(40, 4, 0, labels=labels), gaussian(40, 4, 1, labels=labels * 2)
    rows = per_class(samples, ReferenceComparison(Pixels(), reference, None, torch.device("cpu")), "abc")
    assert [(row["samples"], row["reference"]) for row in rows] == [(20, 20), (20, 0), (0, 20)]
    assert [row["distance"] is None for row in rows] == [False, True, True]
    assert [row["wanted"] is None for row in rows] == [False, False, True]
    assert rows[1]["wanted"] == 0
    assert (
        per_class(gaussian(40, 4, 0), ReferenceComparison(Pixels(), reference, None, torch.device("cpu")), "abc") == []
    )
