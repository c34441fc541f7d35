"""Metrics against their definitions."""

import math

import pytest
import torch

from sitkit.recipes.metrics import energy_distance, frechet_distance, moments, nearer_share, nearest


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
