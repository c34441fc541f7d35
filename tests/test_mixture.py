"""Exact fields of mixtures, against torch's distributions and against one another."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, distributions

from sitkit.backbones import Mixture
from sitkit.interpolants import VP, Interpolant
from worlds import FROM_NOISE, PATHS, RING, doubles, random_mixture

worlds = st.builds(random_mixture, st.integers(1, 4), st.integers(1, 5), st.integers(0, 999))
paths = st.sampled_from(PATHS)
times = st.floats(0.02, 0.98)


def by_torch(world: Mixture) -> distributions.Distribution:
    parts = distributions.MultivariateNormal(world.means, covariance_matrix=world.covariances)
    return distributions.MixtureSameFamily(distributions.Categorical(world.weights), parts)


@given(worlds, paths, times, st.integers(0, 99))
def test_density_and_score_are_those_of_torch(world, path, t, seed) -> None:  # type: ignore[no-untyped-def]
    there = world.along(path, t)
    x = there.draw(6, torch.Generator().manual_seed(seed)).requires_grad_()
    density = by_torch(there).log_prob(x)
    torch.testing.assert_close(there.log_prob(x), density)
    (gradient,) = torch.autograd.grad(density.sum(), x)
    torch.testing.assert_close(world.score(path)(x.detach(), torch.full((6,), t, dtype=torch.float64)), gradient)


@given(worlds, paths, times, st.integers(0, 99))
def test_the_four_fields_are_one(world, path, t, seed) -> None:  # type: ignore[no-untyped-def]
    x_t = world.along(path, t).draw(6, torch.Generator().manual_seed(seed))
    time = torch.full((6,), t, dtype=torch.float64)
    score, noise, data, velocity = (
        getattr(world, name)(path)(x_t, time) for name in ("score", "noise", "data", "velocity")
    )
    torch.testing.assert_close(noise, -path.sigma(time)[:, None] * score)
    torch.testing.assert_close(path.mix(data, noise, time), x_t)
    torch.testing.assert_close(velocity, path.velocity(data, noise, time))
    torch.testing.assert_close(path.score_from_velocity(velocity, x_t, time), score, rtol=1e-6, atol=1e-6)


def test_draws_follow_the_density() -> None:
    world = random_mixture(3, 2, seed=0)
    x = world.draw(100_000, torch.Generator().manual_seed(0))
    mean = (world.weights[:, None] * world.means).sum(0)
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=0.02)
    tilted = Mixture(
        torch.ones(1), torch.zeros(1, 3), torch.tensor([[[2.0, 1.2, 0.3], [1.2, 1.0, -0.4], [0.3, -0.4, 1.5]]])
    )
    drawn = tilted.draw(100_000, torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(torch.cov(drawn.T), tilted.covariances[0], rtol=0, atol=0.03)
    # E[score^2] = -E[Laplacian of log p]: a law that holds only if draws and density are one distribution
    at_data = doubles(1.0).expand(len(x))
    score = world.score(PATHS[0])
    along = torch.eye(2).double()[:1].expand(x.shape)
    values, slopes = torch.func.jvp(lambda x: score(x, at_data), (x,), (along,))  # type: ignore[misc]
    torch.testing.assert_close((values[:, 0] ** 2).mean(), -slopes[:, 0].mean(), rtol=0.03, atol=0)
    assert torch.equal(world.draw(9, torch.Generator().manual_seed(3)), world.draw(9, torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_single_precision_is_stable_up_to_both_ends(path: Interpolant) -> None:
    world = random_mixture(3, 4, seed=5)
    ends = [0.0, 1e-6, 1e-3, 0.5, 1 - 1e-3, 1 - 1e-6, 1.0]
    if not path.sigma_dot(torch.ones(())).isfinite():
        ends = ends[:-2]
    for end in ends:
        t = torch.full((8,), end)
        x = world.along(path, float(t[0])).draw(8, torch.Generator().manual_seed(0)).float()
        for name in ("velocity", "score", "noise", "data"):
            single, double = getattr(world, name)(path)(x, t), getattr(world, name)(path)(x.double(), t.double())
            assert single.dtype == torch.float32
            torch.testing.assert_close(single.double(), double, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("path", FROM_NOISE, ids=repr)
def test_at_pure_noise_the_predicted_data_are_the_mean(path: Interpolant) -> None:
    x, zero = torch.randn(5, 2, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    torch.testing.assert_close(RING.data(path)(x, zero), torch.zeros_like(x))
    torch.testing.assert_close(RING.noise(path)(x, zero), x)


def test_a_row_does_not_see_its_mates_and_scalar_times_are_for_all() -> None:
    x, t = torch.randn(4, 2), torch.rand(4)
    field = RING.velocity(VP())
    torch.testing.assert_close(field(x, t)[2:3], field(x[2:3], t[2:3]))
    torch.testing.assert_close(field(x, torch.tensor(0.4)), field(x, torch.full((4,), 0.4)))


def test_draws_are_as_precise_as_the_means() -> None:
    assert not Mixture.isotropic(torch.zeros(2, 3, requires_grad=True), 1.0).draw(4).requires_grad
    for dtype, expected in (
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.long, torch.float32),
    ):
        assert Mixture.isotropic(torch.zeros(2, 3, dtype=dtype), 1.0).draw(4).dtype == expected


def test_isotropic_mixtures_are_mixtures() -> None:
    means = torch.randn(3, 2, dtype=torch.float64)
    one = Mixture.isotropic(means, 0.5)
    same = Mixture(torch.full((3,), 7.0), means, 0.25 * torch.eye(2).expand(3, 2, 2))
    x = torch.randn(5, 2, dtype=torch.float64)
    torch.testing.assert_close(one.log_prob(x), same.log_prob(x))


UNIT = torch.eye(2).expand(3, 2, 2)


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "said"),
    [
        (torch.ones(3), torch.zeros(3, 2), torch.eye(2), "means \\(K, D\\) and covariances"),
        (torch.ones(3), torch.zeros(2), UNIT, "means \\(K, D\\)"),
        (torch.ones(3), torch.zeros(3, 2), torch.eye(3).expand(3, 3, 3), "means \\(K, D\\) and covariances"),
        (torch.ones(3), torch.zeros(3, 2), UNIT[:2], "means \\(K, D\\) and covariances"),
        (torch.ones(2), torch.zeros(3, 2), UNIT, "weights must be positive"),
        (torch.tensor([1.0, 0.0, 1.0]), torch.zeros(3, 2), UNIT, "weights must be positive"),
        (torch.ones(3), torch.zeros(3, 2), torch.ones(3, 2, 2), "positive definite"),
        (torch.ones(3), torch.zeros(3, 2), UNIT + torch.tensor([[0.0, 0.5], [0.0, 0.0]]), "symmetric"),
        (torch.ones(3), torch.full((3, 2), math.nan), UNIT, "means must be finite"),
        (torch.ones(3), torch.full((3, 2), math.inf), UNIT, "means must be finite"),
        (torch.tensor([1.0, math.inf, 1.0]), torch.zeros(3, 2), UNIT, "weights must be finite"),
        (torch.tensor([1.0, math.nan, 1.0]), torch.zeros(3, 2), UNIT, "weights must be"),
        (torch.ones(3), torch.zeros(3, 2), UNIT * math.inf, "covariances must be finite"),
        (torch.ones(3), torch.zeros(3, 2), UNIT * math.nan, "covariances must be finite"),
        (torch.ones(0), torch.zeros(0, 2), UNIT[:0], "K >= 1 means"),
        (torch.ones(3), torch.zeros(3, 0), torch.zeros(3, 0, 0), "K >= 1 means"),
    ],
)
def test_invalid_mixtures_are_refused(weights: Tensor, means: Tensor, covariances: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Mixture(weights, means, covariances)


def test_points_of_another_size_and_times_of_other_rows_are_refused() -> None:
    world = random_mixture(3, 2, seed=0)
    for t in (torch.rand(1), torch.rand(2), torch.rand(4, 1)):
        with pytest.raises(ValueError, match=r"t must be a scalar or have shape \(4,\) as x has 4 rows"):
            world.velocity(VP())(torch.randn(4, 2), t)
    assert world.draw(0).shape == (0, 2)
    with pytest.raises(ValueError, match=r"x of shape \(B, 2\), got \(4, 3\)"):
        RING.velocity(VP())(torch.randn(4, 3), torch.rand(4))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # of torch 2.13's jvp, by itself
@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_fields_are_the_same_in_every_mode_and_precision(path: Interpolant) -> None:
    world, t = random_mixture(3, 2, seed=0), torch.linspace(0.1, 0.9, 6)
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)).bfloat16()
    for field in (world.velocity(path), world.score(path), world.data(path), world.noise(path)):
        exact = field(x.float(), t)
        assert torch.equal(field(x, t), exact.bfloat16())  # rounded at its end only
        with torch.inference_mode():
            assert torch.equal(field(x.float(), t), exact)
        by_row = torch.func.vmap(lambda x, t, field=field: field(x[None], t[None])[0])(x.float(), t)
        torch.testing.assert_close(by_row, exact)
        assert field(x[:0], t[:0]).shape == (0, 2)
    assert world.log_prob(x).dtype == torch.float32
    torch.testing.assert_close(world.log_prob(x), world.log_prob(x.float()), rtol=0, atol=0)
