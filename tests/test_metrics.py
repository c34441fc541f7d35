"""Metrics against their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sitkit.recipes.metrics import (
    energy_distance,
    frechet_distance,
    inception_score,
    kernel_distance,
    moments,
    nearer_share,
    nearest,
    precision_recall,
)
from worlds import drawn


def gaussian(features: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(features, features, generator=generator, dtype=torch.float64)
    return torch.randn(features, generator=generator, dtype=torch.float64), root @ root.T


def test_frechet_distance_of_equal_statistics_is_zero() -> None:
    for features in (1, 5, 64):
        mu, sigma = gaussian(features, features)
        assert abs(frechet_distance(mu, sigma, mu, sigma)) < 1e-6


def test_frechet_distance_is_symmetric_and_that_of_the_general_formula() -> None:
    (mu1, sigma1), (mu2, sigma2) = gaussian(6, 0), gaussian(6, 1)
    roots = torch.linalg.eigvals(sigma1 @ sigma2).real.sqrt().sum()
    expected = (mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * roots
    assert frechet_distance(mu1, sigma1, mu2, sigma2) == pytest.approx(float(expected))
    assert frechet_distance(mu2, sigma2, mu1, sigma1) == pytest.approx(float(expected))


def test_frechet_distance_in_one_dimension() -> None:
    one, two = (torch.tensor([value]) for value in (1.0, 3.0))
    assert frechet_distance(one, torch.tensor([[4.0]]), two, torch.tensor([[9.0]])) == pytest.approx(4 + 1)


def test_frechet_distance_of_fewer_samples_than_features() -> None:
    x = torch.randn(5, 20, generator=torch.Generator().manual_seed(0))
    assert abs(frechet_distance(*moments(x), *moments(x))) < 1e-6
    assert math.isfinite(frechet_distance(*moments(x), *moments(torch.randn(7, 20))))


def frechet_of_points(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the Frechet distance by the points themselves, which are factors of their covariances."""
    one, two = ((z - z.mean(0)) / (len(z) - 1) ** 0.5 for z in (x, y))
    cross = np.linalg.svd((one @ two.T).numpy(), compute_uv=False).sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + one.square().sum() + two.square().sum() - 2 * cross)


@pytest.mark.parametrize(("images", "features", "scale"), [(10, 64, 1.0), (50, 256, 10.0), (300, 256, 10.0)])
def test_frechet_distance_is_as_exact_for_fewer_images_than_features(images: int, features: int, scale: float) -> None:
    x, y = drawn(images, features, 0, scale=scale), drawn(images + 5, features, 1, scale=scale)
    x, y = x * torch.logspace(0, -2, features), y * torch.logspace(0, -2, features)
    assert abs(frechet_distance(*moments(x), *moments(x))) < 1e-9
    assert frechet_distance(*moments(x), *moments(y)) == pytest.approx(frechet_of_points(x, y), rel=1e-12)
    product = (moments(x)[1] @ moments(y)[1]).numpy()
    cross = np.sqrt(np.linalg.eigvals(product).real.clip(min=0)).sum()
    expected = sum(moments(z)[1].trace() for z in (x, y)) - 2 * cross + (x.mean(0) - y.mean(0)).square().sum()
    assert frechet_distance(*moments(x), *moments(y)) == pytest.approx(float(expected), rel=1e-6)


def test_frechet_distance_scales_with_the_square_and_ignores_rotation() -> None:
    (mu1, sigma1), (mu2, sigma2) = gaussian(6, 0), gaussian(6, 1)
    distance = frechet_distance(mu1, sigma1, mu2, sigma2)
    assert frechet_distance(3 * mu1, 9 * sigma1, 3 * mu2, 9 * sigma2) == pytest.approx(9 * distance)
    q = torch.linalg.qr(gaussian(6, 2)[1]).Q
    assert frechet_distance(q @ mu1, q @ sigma1 @ q.T, q @ mu2, q @ sigma2 @ q.T) == pytest.approx(distance)
    assert frechet_distance(mu1, sigma1, mu1 + 2, sigma1) == pytest.approx(4 * 6)
    assert frechet_distance(mu1, 0 * sigma1, mu1, sigma2) == pytest.approx(float(sigma2.trace()))
    halves = frechet_distance(*(value.float() for value in (mu1, sigma1, mu1, sigma1)))
    assert abs(halves) < 1e-9  # computed in float64 for any given dtype


def test_frechet_distance_refuses_invalid_moments() -> None:
    mu, sigma = gaussian(3, 0)
    for wrong in [(mu[:2], sigma), (mu, sigma[:2]), (mu[None], sigma), (mu, sigma[0])]:
        with pytest.raises(ValueError, match=r"expected means \(D,\) and covariances \(D, D\), got .*\)$"):
            frechet_distance(mu, sigma, *wrong)
    with pytest.raises(ValueError, match="expected"):
        frechet_distance(*gaussian(3, 0), *gaussian(4, 0))
    for broken in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not finite"):
            frechet_distance(mu, sigma, mu * broken, sigma)
        with pytest.raises(ValueError, match="not finite"):
            frechet_distance(mu, sigma, mu, sigma * broken)


def test_moments_are_the_mean_and_the_unbiased_covariance() -> None:
    x = torch.tensor([[0.0, 1.0], [2.0, 5.0]])
    mu, sigma = moments(x)
    assert mu.tolist() == [1.0, 3.0]
    assert sigma.tolist() == [[2.0, 4.0], [4.0, 8.0]]
    assert moments(x[:, :1])[1].shape == (1, 1)


def test_neighbours() -> None:
    x = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    one, other = torch.tensor([[0.1], [5.0]]), torch.tensor([[1.9], [8.0]])
    assert nearer_share(x, one, other) == 0.25 + 0.0
    assert nearest(x, one).tolist() == [0, 0, 0, 1]


def test_energy_distance_of_points() -> None:
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0]])
    assert energy_distance(x, y) == pytest.approx(2 * 2 - 1 - 0)
    assert energy_distance(x, x) == pytest.approx(0)


def kernel_distance_by_pairs(x: list[list[float]], y: list[list[float]]) -> float:
    def kernel(a: list[float], b: list[float]) -> float:
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    def within(z: list[list[float]]) -> float:
        pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if i != j]
        return math.fsum(kernel(z[i], z[j]) for i, j in pairs) / len(pairs)

    return within(x) + within(y) - 2 * math.fsum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))


@pytest.mark.parametrize(("real", "fake"), [(2, 2), (7, 12), (12, 7)])
def test_kernel_distance_is_its_definition_in_chunks_of_any_size(real: int, fake: int) -> None:
    x, y = drawn(real, 5, 0), drawn(fake, 5, 1, mean=1.0)
    expected = pytest.approx(kernel_distance_by_pairs(x.tolist(), y.tolist()), rel=1e-12)
    for chunk in (1, 11, 24, 100, 2**24):
        assert kernel_distance(x, y, chunk=chunk) == expected
    assert kernel_distance(y, x) == expected
    assert kernel_distance(x.flip(0), y.roll(1, 0)) == expected
    assert kernel_distance(torch.cat([x, x], 1), torch.cat([y, y], 1)) == expected  # x.y / D is a mean


def test_kernel_distance_is_unbiased_and_of_float64() -> None:
    x = drawn(40, 3, 0)
    assert kernel_distance(x, x) < 0
    draws = torch.tensor([kernel_distance(drawn(20, 3, seed), drawn(20, 3, 1000 + seed)) for seed in range(300)])
    assert draws.min() < 0 < draws.max()
    assert abs(draws.mean()) < 4 * draws.std() / 300**0.5
    far = drawn(40, 3, 1).float() + 30
    assert kernel_distance(x.float(), far) == kernel_distance(x.float().double(), far.double())


def precision_by_pairs(x: list[list[float]], among: list[list[float]], k: int) -> float:
    """Return the fraction of points in the balls; squared radii of integers are exact."""

    def square(a: list[float], b: list[float]) -> float:
        return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))

    others = [[square(a, b) for j, b in enumerate(among) if i != j] for i, a in enumerate(among)]
    radii = [sorted(squares)[k - 1] for squares in others]
    inside = [any(square(a, b) <= radius for b, radius in zip(among, radii, strict=True)) for a in x]
    return sum(inside) / len(inside)


def lattice(points: int) -> st.SearchStrategy[list[list[float]]]:
    """Points with many ties: equal points and equal distances."""
    numbers = st.integers(-2, 2).map(float)
    return st.lists(st.lists(numbers, min_size=2, max_size=2), min_size=4, max_size=points)


@given(lattice(9), lattice(9), st.integers(1, 3), st.integers(1, 30))
def test_precision_and_recall_are_their_definition(
    real: list[list[float]], fake: list[list[float]], k: int, chunk: int
) -> None:
    x, y = torch.tensor(real), torch.tensor(fake)
    expected = precision_by_pairs(fake, real, k), precision_by_pairs(real, fake, k)
    assert precision_recall(x, y, k) == expected
    assert precision_recall(x, y, k, chunk=chunk) == expected
    assert precision_recall(x.flip(0), y.roll(1, 0), k) == expected
    assert precision_recall(8 * x, 8 * y, k) == expected
    assert precision_recall(y, x, k) == expected[::-1]
    assert precision_recall(x, x, k) == (1, 1)


def test_precision_and_recall_distinguish_bad_quality_and_bad_coverage() -> None:
    real = torch.cat([drawn(50, 4, 0), drawn(50, 4, 1) + 100])
    narrow, wide = real[:50] + 1e-3, torch.cat([real, drawn(100, 4, 2) - 100])
    assert precision_recall(real, narrow) == (1.0, 0.5)
    assert precision_recall(real, wide) == (0.5, 1.0)
    assert precision_recall(real, real + 1000) == (0.0, 0.0)


def test_equal_points_are_at_distance_0() -> None:
    x = drawn(40, 30, 0).float() + 1000  # squares of float32 would give distances of about 1
    twice = torch.cat([x, x])
    assert precision_recall(twice, x, k=1) == (1.0, 1.0)
    assert precision_recall(twice, x + 1e-3, k=1) == (0.0, 1.0)  # the radii are 0


def test_precision_and_recall_are_in_the_dtype_of_the_features_but_not_in_less_than_float32() -> None:
    x = torch.arange(8.0, dtype=torch.float64)[:, None] ** 2
    near, far = torch.cat([x, x + 1e-9]), x + 3e-9
    assert precision_recall(near, far, k=1)[0] == 0.0
    assert precision_recall(near.float(), far, k=1)[0] == 0.0  # the wider of two
    assert precision_recall(near.float(), far.float(), k=1)[0] == 0.875  # but at 0, float32 makes all three equal
    half = (x[:6] * 8).half()
    assert precision_recall(half, half + 0.125, k=1) == precision_recall(half.float(), (half + 0.125).float(), k=1)
    assert precision_recall(x.long(), x.double() + 0.5, k=1) == precision_recall(x, x + 0.5, k=1)


def test_distances_of_points_refuse_bad_arguments() -> None:
    x = drawn(4, 3, 0)
    for compare in (precision_recall, kernel_distance):
        for wrong in (x[:, :2], x[0], x[None], x[:, :0]):
            with pytest.raises(ValueError, match=r"expected features \(M, D\) and \(N, D\), got .*\)$"):
                compare(x, wrong)
        with pytest.raises(ValueError, match="not finite"):
            compare(x, x / 0)
        with pytest.raises(ValueError, match="not finite"):
            compare(x * math.nan, x)
    for few in ((x, x[:3]), (x[:3], x)):
        with pytest.raises(ValueError, match="too few: at least 4 of each are needed"):
            precision_recall(*few)
    with pytest.raises(ValueError, match="1 real and 4 fake points are too few: at least 2 of each"):
        kernel_distance(x[:1], x)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        precision_recall(x, x, 0)


def score_by_images(probs: list[list[float]], splits: int) -> float:
    scores = []
    for split in range(splits):
        part = probs[split * len(probs) // splits : (split + 1) * len(probs) // splits]
        marginal = [math.fsum(column) / len(part) for column in zip(*part, strict=True)]
        terms = [p * math.log(p / q) for row in part for p, q in zip(row, marginal, strict=True) if p > 0]
        scores.append(math.exp(math.fsum(terms) / len(part)))
    return sum(scores) / splits


@given(st.integers(1, 23), st.integers(1, 6), st.integers(0, 99), st.floats(0.1, 30.0))
def test_inception_score_is_its_definition(images: int, classes: int, seed: int, sharpness: float) -> None:
    probs = (drawn(images, classes, seed) * sharpness).softmax(1)
    for splits in {1, min(4, images), images}:
        score = inception_score(probs, splits)
        assert score == pytest.approx(score_by_images(probs.tolist(), splits), rel=1e-12)
        assert inception_score(probs.flip(1), splits) == pytest.approx(score, rel=1e-12)
        assert 1 - 1e-12 <= score <= classes * (1 + 1e-12)
    assert inception_score(probs.roll(1, 0), 1) == pytest.approx(inception_score(probs, 1), rel=1e-12)
    assert inception_score(probs.float(), 1) == pytest.approx(inception_score(probs, 1), rel=1e-4)


def test_inception_score_of_certain_and_of_unsure_classifiers() -> None:
    certain = torch.eye(5).repeat(20, 1)
    assert inception_score(certain) == pytest.approx(5, rel=1e-12)
    assert inception_score(torch.eye(5).repeat_interleave(20, 0)) == pytest.approx(1, rel=1e-12)  # one class a split
    assert inception_score(torch.full((100, 5), 0.2)) == pytest.approx(1, rel=1e-12)
    assert inception_score(torch.cat([certain, torch.full((100, 5), 0.2)]), 2) == pytest.approx(3, rel=1e-12)


def test_inception_score_refuses_invalid_probabilities() -> None:
    probs = torch.full((20, 4), 0.25)
    for wrong, splits in ((probs, 21), (probs, 0), (probs[0], 1), (probs[None], 1)):
        with pytest.raises(ValueError, match="expected"):
            inception_score(wrong, splits)
    negative = probs.clone()
    negative[3] = torch.tensor([0.5, 0.75, -0.25, 0.0])
    for broken in (negative, 4 * probs, probs.log(), probs * math.nan, torch.zeros(20, 4)):
        with pytest.raises(ValueError, match="probabilities must be at least 0"):
            inception_score(broken)


def test_metrics_are_those_of_torch_fidelity() -> None:
    """The values of torch-fidelity 0.4.0 (torch 2.13.0, NumPy 2.4.6) for these features, on 2026-11-23.

    It is not installed here: it needs torchvision, which cannot be imported beside a CPU build of torch, and which
    breaks the import of diffusers then. Its functions were `fid_statistics_to_metric`, `kid_features_to_metric`
    with one subset of all points, `prc_features_to_metric`, and `isc_features_to_metric` without shuffling.
    """
    x, y = drawn(400, 16, 0), drawn(300, 16, 1, mean=0.1, scale=0.9)
    assert frechet_distance(*moments(x), *moments(y)) == pytest.approx(0.8741315275470676, rel=1e-10)
    assert kernel_distance(x[:300], y) == pytest.approx(0.08848130336062843, rel=1e-10)
    assert precision_recall(x, y) == pytest.approx((0.9133333563804626, 0.7099999785423279), rel=1e-6)
    assert inception_score(x.softmax(1), 7) == pytest.approx(1.5703286641388112, rel=1e-10)
    x, y = drawn(20, 40, 0), drawn(30, 40, 1, mean=0.1, scale=0.9)
    assert frechet_distance(*moments(x), *moments(y)) == pytest.approx(33.38305870427896, rel=1e-7)
    assert kernel_distance(x, y[:20]) == pytest.approx(0.2469696987058998, rel=1e-10)
    assert precision_recall(x, y) == pytest.approx((0.9666666388511658, 0.30000001192092896), rel=1e-6)
    assert inception_score(x.softmax(1), 7) == pytest.approx(1.326809517634755, rel=1e-10)
