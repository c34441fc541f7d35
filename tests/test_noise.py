"""Laws of noise sources."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sitkit.interpolants import Linear
from sitkit.samplers import Brownian, Keyed, initial_noise, philox, plan, white
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
    torch.testing.assert_close(covariance, expected, rtol=0, atol=0.2)
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


def test_more_levels_see_the_same_path() -> None:
    x, times = torch.zeros(3, 2, dtype=torch.float64), doubles(0.5, 0.1, 1 / 3)
    paths = [Brownian(0, torch.arange(3), levels=levels) for levels in (4, 16, 17, 30)]
    for t in times:
        positions = torch.stack([path.position(x, t) for path in (Brownian(0, torch.arange(3)), *paths)])
        assert torch.equal(positions, positions[:1].expand(5, 3, 2))


@pytest.mark.parametrize("interval", [(0.0, 1.0), (-0.3, 1.0), (0.1, 0.9)])
def test_a_brownian_path_takes_any_grid_and_its_increments_add_up(interval: tuple[float, float]) -> None:
    x = torch.zeros(5, 3, dtype=torch.float64)
    brownian = Brownian(2, torch.arange(5), interval)
    inside = torch.linspace(*interval, 23, dtype=torch.float64)
    planned = plan(lambda x, t: x, Linear(), evaluations=7, interval=(0.1, 0.9)).times
    for clamped in (inside, inside.float().double(), planned, torch.linspace(0.1, 0.9, 5).double()):
        times = clamped.clamp(*interval)
        walked = sum((s - t).sqrt() * brownian(x, t, s) for t, s in itertools.pairwise(times))
        straight = (times[-1] - times[0]).sqrt() * brownian(x, times[0], times[-1])
        torch.testing.assert_close(walked, straight, rtol=0, atol=1e-13)
        torch.testing.assert_close(
            straight, brownian.position(x, times[-1]) - brownian.position(x, times[0]), rtol=0, atol=1e-13
        )


@pytest.mark.parametrize(
    ("t", "s"), [(0.5, 0.5 + 1e-8), (0.1, 0.1 + 2.0**-55), (1e-9, 2e-9), (0.0, 1e-300), (1 - 2.0**-53, 1.0), (0.3, 0.7)]
)
def test_increments_over_steps_of_any_length_are_standard_and_independent(t: float, s: float) -> None:
    x = torch.zeros(4000, 1, dtype=torch.float64)
    brownian = Brownian(1, torch.arange(4000))
    middle = t + (s - t) / 2
    steps = [brownian(x, *doubles(*ends)) for ends in ((t, s), (s, 1.0), (0.0, t)) if ends[0] < ends[1]]
    covariance = torch.cov(torch.cat(steps, 1).T)
    torch.testing.assert_close(covariance, torch.eye(len(steps)).double().reshape(covariance.shape), rtol=0, atol=0.08)
    if t < middle < s:
        halves = [brownian(x, *doubles(*ends)) * (ends[1] - ends[0]) ** 0.5 for ends in ((t, middle), (middle, s))]
        torch.testing.assert_close(sum(halves) / (s - t) ** 0.5, steps[0], rtol=0, atol=1e-7)


def test_rows_of_a_step_have_the_noise_of_their_own_times() -> None:
    x, index = torch.zeros(4, 2, 3), torch.arange(4)
    t, s = doubles(0.1, 0.25, 0.1, 0.5), doubles(0.2, 0.5, 0.2, 0.75)
    for source in (Keyed(3, index), Brownian(3, index)):
        together = source(x, t, s)
        for k in range(4):
            alone = type(source)(3, index[k : k + 1])
            assert torch.equal(alone(x[k : k + 1], t[k], s[k])[0], together[k])
            assert torch.equal(alone(x[k : k + 1], t[k : k + 1], s[k : k + 1])[0], together[k])


def test_states_may_be_scalar_and_batches_empty() -> None:
    t, s = doubles(0.1, 0.2)
    for count in (0, 1, 3):
        index = torch.arange(count, dtype=torch.int32)
        for shape in ((), (2,), (0,), (2, 3)):
            x = torch.zeros(count, *shape)
            for source in (Keyed(0, index), Brownian(0, index)):
                assert source(x, t, s).shape == x.shape
                assert source(x, t.expand(count), s.expand(count)).shape == x.shape
            assert initial_noise(0, index, shape).shape == x.shape
    numbers = torch.tensor([0, 5, 2**31 - 1])
    for draw in (
        lambda index: Keyed(7, index)(torch.zeros(3, 4), t, s),
        lambda index: Brownian(7, index)(torch.zeros(3, 4), t, s),
        lambda index: initial_noise(7, index, (4,)),
    ):
        assert torch.equal(draw(numbers.int()), draw(numbers))  # type: ignore[no-untyped-call]
        for wrong in (numbers.float(), numbers > 0, numbers[:, None]):
            with pytest.raises(ValueError, match="must be integers of shape"):
                draw(wrong)  # type: ignore[no-untyped-call]


def test_starting_noise_is_numbered_and_normal() -> None:
    noise = initial_noise(0, torch.arange(5000), (4,))
    assert noise.dtype == torch.float32
    assert torch.equal(initial_noise(0, torch.tensor([7, 3]), (4,)), noise[[7, 3]])
    assert not torch.equal(initial_noise(1, torch.arange(5000), (4,)), noise)
    torch.testing.assert_close(torch.cov(noise.T), torch.eye(4), rtol=0, atol=0.06)


def test_initial_noise_is_independent_of_the_noise_of_steps() -> None:
    """An earlier version used the initial noise of the key (0, 0) as first increment: variances were too large."""
    index, x = torch.arange(4000), torch.zeros(4000, 1)
    t, s, end = doubles(0.0, 0.5, 1.0)
    draws = [initial_noise(0, index, (1,)), philox.normal(philox.key(0, 0), index, (1,)).float()]
    for source in (Keyed(0, index), Brownian(0, index)):
        draws += [source(x, *step) for step in ((t, s), (s, end))]
    torch.testing.assert_close(torch.cov(torch.cat(draws, 1).T), torch.eye(6), rtol=0, atol=0.07)


def test_a_brownian_path_refuses_bad_arguments() -> None:
    x, brownian = torch.zeros(3, 2), Brownian(0, torch.arange(3))
    for t, s in ((0.5, 1.0625), (-0.0625, 0.5), (0.5, float("inf"))):
        with pytest.raises(ValueError, match=r"outside of the interval \(0\.0, 1\.0\)"):
            brownian(x, torch.tensor(t), torch.tensor(s))
    for end in (0.5, 0.25):
        with pytest.raises(ValueError, match="t < s"):
            brownian(x, torch.tensor(0.5), torch.tensor(end))
    with pytest.raises(ValueError, match="3 sample numbers, and x has 2 rows"):
        brownian(x[:2], torch.tensor(0.0), torch.tensor(0.5))
    nan, inf = float("nan"), float("inf")
    for interval in ((1.0, 0.0), (1.0, 1.0), (0.0, nan), (nan, 1.0), (0.0, inf), (-inf, 0.0), (-1e308, 1e308)):
        with pytest.raises(ValueError, match="give a finite interval"):
            Brownian(0, torch.arange(3), interval)
