"""Laws of noise."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sitkit.samplers import Brownian, Keyed, white
from worlds import doubles


@given(st.integers(-(2**63), 2**64), st.lists(st.integers(0, 2**62), min_size=2, max_size=9, unique=True))
def test_keyed_noise_does_not_depend_on_its_batch(seed, numbers) -> None:  # type: ignore[no-untyped-def]
    index = torch.tensor(numbers)
    t, s = torch.tensor(0.25), torch.tensor(0.5)
    x = torch.zeros(len(index), 3, 3)
    together = Keyed(seed, index)(x, t, s)
    for k in range(len(index)):
        assert torch.equal(Keyed(seed, index[k : k + 1])(x[:1], t, s)[0], together[k])
    assert torch.equal(Keyed(seed, index.flip(0))(x, t, s), together.flip(0))


def test_keyed_noise_is_new_for_every_seed_sample_and_step_and_normal() -> None:
    index = torch.arange(2000)
    x = torch.zeros(2000, 5, dtype=torch.float64)
    t, s, u = doubles(0.0, 0.5, 0.6)
    keys = [(0, 0, t, s), (1, 0, t, s), (2**32, 0, t, s), (0, 0, t, u), (0, 0, s, u), (0, 2**32, t, s), (0, 2000, t, s)]
    draws = torch.stack([Keyed(seed, index + first)(x, *step) for seed, first, *step in keys]).flatten(1)
    covariance = torch.cov(torch.cat([draws, draws**2]))
    expected = torch.diag(torch.cat([torch.ones(7), 2 * torch.ones(7)])).double()
    torch.testing.assert_close(covariance, expected, rtol=0, atol=0.12)
    assert draws.mean().abs() < 0.02
    for value in (0.5, 1.0, 2.0):
        normal = 0.5 * (1 + torch.erf(torch.tensor(value / 2**0.5)))
        assert (draws < value).double().mean() == pytest.approx(float(normal), abs=0.005)


def test_keyed_noise_knows_times_by_value() -> None:
    x = torch.zeros(3, 2)
    noise = Keyed(0, torch.arange(3))
    single = noise(x, torch.tensor(0.25), torch.tensor(0.5))
    assert torch.equal(single, noise(x.double(), *doubles(0.25, 0.5)).float())
    assert torch.equal(noise(x, *doubles(-0.0, 0.5)), noise(x, *doubles(0.0, 0.5)))
    assert not torch.equal(noise(x, *doubles(0.1, 0.5)), noise(x, torch.tensor(0.1), torch.tensor(0.5)))
    with pytest.raises(ValueError, match="3 sample numbers, and x has 2 rows"):
        noise(x[:2], torch.tensor(0.25), torch.tensor(0.5))


def test_white_noise_follows_the_global_generator() -> None:
    x, t = torch.zeros(4, 2), torch.tensor(0.5)
    torch.manual_seed(0)
    first = white(x, t, t)
    torch.manual_seed(0)
    assert torch.equal(first, white(x, t, t))
    many = white(torch.zeros(100_000, dtype=torch.float64), t, t)
    assert many.mean() == pytest.approx(0, abs=0.02)
    assert many.var() == pytest.approx(1, abs=0.03)


def test_a_brownian_path_refined_is_the_same_path() -> None:
    x, index = torch.zeros(6, 2, 3, dtype=torch.float64), torch.arange(6)
    brownian = Brownian(3, index, interval=(0.5, 2.5), levels=6)
    times = torch.linspace(0.5, 2.5, 65, dtype=torch.float64)
    fine = [(s - t).sqrt() * brownian(x, t, s) for t, s in itertools.pairwise(times)]
    for width in (2, 8, 64):
        for k in range(0, 64, width):
            t, s = times[k], times[k + width]
            torch.testing.assert_close((s - t).sqrt() * brownian(x, t, s), sum(fine[k : k + width]))
    alone = Brownian(3, index[4:5], interval=(0.5, 2.5), levels=6)
    assert torch.equal(alone(x[:1], times[3], times[4]), brownian(x, times[3], times[4])[4:5])
    assert torch.equal(brownian(x.float(), times[3], times[4]), brownian(x, times[3], times[4]).float())


def test_brownian_increments_are_independent_and_standard() -> None:
    x = torch.zeros(4000, 4, dtype=torch.float64)
    times = doubles(-1.0, 0.25, 0.375, 0.5, 1.0)
    for seed in (0, 1):
        brownian = Brownian(seed, torch.arange(4000), interval=(-1.0, 1.0), levels=4)
        steps = torch.stack([brownian(x, t, s) for t, s in itertools.pairwise(times)]).flatten(1)
        torch.testing.assert_close(torch.cov(steps), torch.eye(4, dtype=torch.float64), rtol=0, atol=0.06)
        torch.testing.assert_close(steps.mean(1), torch.zeros(4, dtype=torch.float64), rtol=0, atol=0.04)
    assert brownian.position(x, doubles(-1.0)[0]).abs().max() == 0
    torch.testing.assert_close(brownian.position(x, doubles(1.0)[0]).var(), doubles(2.0)[0], rtol=0.05, atol=0)


def test_a_brownian_path_says_what_it_cannot_do() -> None:
    x, brownian = torch.zeros(3, 2), Brownian(0, torch.arange(3), levels=4)
    with pytest.raises(ValueError, match=r"no multiple of 2\^-4 of \(0\.0, 1\.0\)"):
        brownian(x, torch.tensor(0.1), torch.tensor(0.5))
    with pytest.raises(ValueError, match="no multiple"):
        brownian(x, torch.tensor(0.5), torch.tensor(1.0625))
    with pytest.raises(ValueError, match="no multiple"):
        brownian(x, torch.tensor(-0.0625), torch.tensor(0.5))
    for end in (0.5, 0.25):
        with pytest.raises(ValueError, match="t < s"):
            brownian(x, torch.tensor(0.5), torch.tensor(end))
    with pytest.raises(ValueError, match="3 sample numbers, and x has 2 rows"):
        brownian(x[:2], torch.tensor(0.0), torch.tensor(0.5))
    for interval, levels in (((1.0, 0.0), 4), ((1.0, 1.0), 4), ((0.0, 1.0), 31), ((0.0, 1.0), -1)):
        with pytest.raises(ValueError, match="give an interval"):
            Brownian(0, torch.arange(3), interval, levels)
