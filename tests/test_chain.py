"""DiT's chain in discrete time, against closed forms on normal data."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from sitkit.interpolants import DDPM, GVP, Interpolant, Linear
from sitkit.objectives import Grid, Hybrid, Matching, Noise
from sitkit.samplers import DDIM, Ancestral, Field, Keyed, LearnedAncestral, sample
from worlds import PATHS, Gaussian, Quadratic, doubles, random_mixture, slope

PATH = DDPM()
WORLD = Gaussian(mean=0.4, std=0.5)


def exact_noise(x: Tensor, t: Tensor) -> Tensor:
    """Return E[eps | x_t] for images whose pixels are all distributed as `WORLD`."""
    t = t.reshape(-1, *[1] * (x.ndim - 1))
    mean, std = WORLD.moments(PATH, t)
    return PATH.sigma(t) * (x - mean) / std**2


def exact_variance(t: Tensor, s: Tensor) -> Tensor:
    """Return the variance of x_s given x_t."""
    known, (_, std) = PATH.posterior(t, s), WORLD.moments(PATH, t)
    data_given_state = WORLD.std**2 * (PATH.sigma(t) / std) ** 2
    return known.variance + known.data**2 * data_given_state


def exact_range(t: Tensor, s: Tensor) -> Tensor:
    """Return the interpolation coefficient of that variance."""
    known = PATH.posterior(t, s)
    low, high = known.variance.clamp(min=1e-20).log(), known.forward.log()
    return 2 * (exact_variance(t, s).log() - low) / (high - low) - 1


def model(times: Tensor) -> Field:
    """Return the perfect network of a chain, given its next time."""

    def field(x: Tensor, t: Tensor) -> Tensor:
        here = int((times - t[0]).abs().argmin())
        between = exact_range(times[here], times[here + 1]) if here + 2 < len(times) else torch.zeros(())
        return torch.cat([exact_noise(x, t), between.expand(x.shape).to(x)], dim=1)

    return field


@pytest.mark.parametrize("count", [4, 25, 250])
def test_a_perfect_network_makes_normal_data_exactly_in_any_number_of_steps(count: int) -> None:
    """With the variance right, the chain of normal data is exact: its moments are met at every time."""
    times = PATH.times(count)
    mean, variance = (value**power for value, power in zip(WORLD.moments(PATH, times[0]), (1, 2), strict=True))
    states, noises = (doubles(*row).reshape(3, 1, 1, 1) for row in ((0, 1, 0), (0, 0, 1)))
    sampler = LearnedAncestral(model(times), PATH, noise=lambda x, t, s: noises)
    for t, s in itertools.pairwise(times):
        still, by_state, by_noise = sampler.step(states, t, s).flatten()
        mean = still + (by_state - still) * mean
        variance = (by_state - still) ** 2 * variance + (by_noise - still) ** 2
        if s < 1:  # the last step has no noise
            exact_mean, exact_std = WORLD.moments(PATH, s)
            torch.testing.assert_close(mean, exact_mean)
            torch.testing.assert_close(variance, exact_std**2, rtol=1e-6, atol=1e-9)


def test_ancestral_samples_have_the_moments_of_the_data() -> None:
    x = torch.randn(4000, 1, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times = PATH.times(100)
    learned = sample(LearnedAncestral(model(times), PATH, Keyed(0, torch.arange(4000))), x, times)
    velocity = Matching(PATH, Noise).field(exact_noise)
    fixed = sample(Ancestral(velocity, PATH, Keyed(0, torch.arange(4000))), x, times)
    for reached, near in ((learned, 0.03), (fixed, 0.08)):
        assert reached.mean() == pytest.approx(WORLD.mean, abs=0.03)
        assert reached.std() == pytest.approx(WORLD.std, rel=near)
        assert torch.corrcoef(reached.flatten(1).T)[0, 1].abs() < 0.05


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("grids", [(50, 100, 200), pytest.param((50, 100, 200, 400), marks=pytest.mark.slow)])
def test_without_noise_the_chain_is_ddim_and_ddim_follows_the_ode(path: Interpolant, grids: tuple[int, ...]) -> None:
    world = Gaussian(mean=1.0, std=0.6)
    velocity, ends = world.velocity(path), doubles(0.1, 0.95)
    x = doubles(-1.0, 0.3, 2.0)[:, None]
    exact = world.flow(path, x, *ends)
    errors = []
    for steps in grids:
        times = torch.linspace(0.1, 0.95, steps + 1, dtype=torch.float64)
        errors.append(float((sample(DDIM(velocity, path), x, times) - exact).abs().max()))
    assert slope(grids, errors) == pytest.approx(1, abs=0.15)
    # both ends of the family of variances between DDIM's 0 and the posterior's, from one formula
    t, s = doubles(0.4, 0.6)
    v = velocity(x, t.expand(3))
    data, noise = path.data_from_velocity(v, x, t), path.noise_from_velocity(v, x, t)
    variance = path.posterior(t, s).variance
    mean = path.alpha(s) * data + (path.sigma(s) ** 2 - variance).sqrt() * noise
    torch.testing.assert_close(Ancestral(velocity, path, lambda x, t, s: 0 * x).step(x, t, s), mean)
    torch.testing.assert_close(Ancestral(velocity, path, lambda x, t, s: x**0).step(x, t, s), mean + variance.sqrt())
    torch.testing.assert_close(DDIM(velocity, path).step(x, t, s), path.alpha(s) * data + path.sigma(s) * noise)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_ancestral_steps_start_from_noise_and_end_in_data(path: Interpolant) -> None:
    world = random_mixture(3, 2, seed=4)
    start = 0.0 if path.alpha_dot(torch.zeros(())) > 0 else 0.02
    x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times = torch.linspace(start, 1, 200, dtype=torch.float64)
    reached = sample(Ancestral(world.velocity(path), path, Keyed(0, torch.arange(2000))), x, times)
    assert reached.isfinite().all()
    likely = world.log_prob(world.draw(20_000, torch.Generator().manual_seed(1))).mean()
    assert world.log_prob(reached).mean() == pytest.approx(float(likely), abs=0.12)


def batch(count: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = WORLD.mean + WORLD.std * torch.randn(count, 1, 2, 2, generator=generator, dtype=torch.float64)
    eps = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return x, eps, Grid(1000)(torch.rand(count, generator=generator, dtype=torch.float64))


def test_the_hybrid_loss_is_least_at_the_exact_noise_and_variance() -> None:
    x, eps, _ = batch(40_000)
    objective = Hybrid(PATH)
    for timestep in (10, 300, 990):
        t = PATH.time(torch.tensor(timestep)).expand(len(x))
        s = t[0] + 1e-3
        shift = torch.zeros(2, len(x), 1, 1, 1, dtype=torch.float64, requires_grad=True)

        def network(x_t: Tensor, t: Tensor, s: Tensor = s, shift: Tensor = shift) -> Tensor:
            noise, between = exact_noise(x_t, t) + shift[0], exact_range(t[0], s) + shift[1]
            return torch.cat([noise, between.expand(x_t.shape)], dim=1)

        (slopes,) = torch.autograd.grad(objective(network, x, eps, t).sum(), shift)
        for values in slopes.flatten(1):
            assert values.mean().abs() < 4.5 * values.std() / math.sqrt(len(x))
        assert slopes.abs().mean() > 1e-6


def test_only_the_range_learns_from_the_bound() -> None:
    x, eps, t = batch(16)
    noise = torch.zeros_like(x, requires_grad=True)
    between = torch.zeros_like(x, requires_grad=True)
    error, bound = Hybrid(PATH).terms(lambda x_t, t: torch.cat([noise, between], 1), x, eps, t)
    assert torch.autograd.grad(bound.sum(), noise, retain_graph=True)[0].abs().max() == 0
    assert torch.autograd.grad(bound.sum(), between)[0].abs().min() > 0
    torch.testing.assert_close(error, eps.square().flatten(1).mean(1))


@pytest.mark.parametrize("timestep", [1, 2, 500, 999])
def test_the_hybrid_bound_is_the_divergence_of_two_normals(timestep: int) -> None:
    x, eps, _ = batch(8)
    t = PATH.time(torch.tensor([timestep])).expand(8)
    s = t + 1e-3
    x_t = PATH.mix(x, eps, t)
    sampler = LearnedAncestral(lambda x, t: torch.cat([torch.cos(x), torch.sin(x)], 1), PATH)
    mean, log_variance = sampler.distribution(x_t, t[0], s[0])
    known = PATH.posterior(t[0], s[0])
    true = torch.distributions.Normal(known.data * x + known.state * x_t, known.variance.sqrt())
    mine = torch.distributions.Normal(mean, (log_variance / 2).exp())
    divergence = torch.distributions.kl_divergence(true, mine).flatten(1).mean(1) / math.log(2)
    _, bound = Hybrid(PATH).terms(sampler.model, x, eps, t)
    torch.testing.assert_close(bound, divergence)


@pytest.mark.parametrize("centre", [-1.0, 0.3, 1.0])
def test_the_last_bound_is_a_distribution_over_pixels(centre: float) -> None:
    """Summed over all 256 values of a pixel, the probabilities that the last step gives are 1."""
    values = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).reshape(-1, 1, 1, 1)
    t = PATH.time(torch.tensor([0])).expand(256)
    eps = (centre - PATH.alpha(t)[0] * values) / PATH.sigma(t)[0]  # the same state for each of them
    _, bits = Hybrid(PATH).terms(lambda x, t: torch.cat([0 * x + 0.2, 0 * x + 0.5], 1), values, eps, t)
    assert (2**-bits).sum() == pytest.approx(1, abs=1e-6)
    assert float(bits.max()) == pytest.approx(12 * math.log2(10))  # where the normal distribution gives no information


def test_the_path_is_never_asked_outside_its_interval() -> None:
    class Strict(DDPM):
        def alpha(self, t: Tensor) -> Tensor:
            assert ((t >= 0) & (t <= 1)).all()
            return super().alpha(t)

    x, eps, _ = batch(3)
    t = doubles(0.0, 0.5, 0.999)
    assert Hybrid(Strict())(lambda x, t: torch.cat([x, x.sin()], 1), x, eps, t).isfinite().all()


def test_chains_refuse_bad_arguments() -> None:
    x, eps, t = batch(3)
    with pytest.raises(ValueError, match=r"noise and variance range .* got \(3, 1, 2, 2\)"):
        Hybrid(PATH)(lambda x, t: x, x, eps, t)
    numbers = x.flatten(1)[:, 0]  # have no channels to double
    with pytest.raises(ValueError, match=r"noise and variance range .* got \(3,\)"):
        Hybrid(PATH)(lambda x, t: x, numbers, numbers, t)
    with pytest.raises(ValueError, match=r"noise and variance range .* got \(3,\)"):
        sample(LearnedAncestral(lambda x, t: x, PATH), numbers, PATH.times(3))
    with pytest.raises(ValueError, match="t must have shape"):
        Hybrid(PATH)(lambda x, t: torch.cat([x, x], 1), x, eps, t[:2])
    with pytest.raises(ValueError, match="t must have shape"):
        Hybrid(PATH)(lambda x, t: torch.cat([x, x], 1), x, eps, t[0])
    with pytest.raises(ValueError, match="steps must be a whole number, at least 2"):
        Hybrid(PATH, steps=1)
    with pytest.raises(ValueError, match="noise and variance range"):
        sample(LearnedAncestral(lambda x, t: x, PATH), x, PATH.times(3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_outputs_and_data_of_half_precision_have_their_bound(dtype: torch.dtype) -> None:
    x, eps = torch.rand(2, 3, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    t = torch.tensor([0.0, 0.5, 0.999])
    both = lambda x, t: torch.cat([0.9 * x, x.sin()], 1)  # noqa: E731
    exact = Hybrid(PATH).terms(both, x, eps, t)
    rounded = Hybrid(PATH).terms(lambda x, t: both(x, t).to(dtype), x, eps, t)  # type: ignore[no-untyped-call]
    asked: list[torch.dtype] = []
    halved = Hybrid(PATH).terms(lambda x, t: (asked.append(x.dtype), both(x, t))[1], x.to(dtype), eps.to(dtype), t)  # type: ignore[func-returns-value,no-untyped-call]
    assert asked == [dtype]
    for error, bound in (rounded, halved):
        assert error.dtype == bound.dtype == torch.float32
        torch.testing.assert_close(error, exact[0], rtol=0.05, atol=0.05)
        assert bound.isfinite().all()
    torch.testing.assert_close(rounded[1], exact[1], rtol=0.3, atol=0.3)


def test_a_bound_that_is_infinite_is_refused_with_its_time() -> None:
    x, eps = torch.randn(2, 3, 1, 2, 2)
    model = lambda x, t: torch.cat([x, x.sin()], 1)  # noqa: E731
    for path in (Linear(), GVP(), Quadratic()):
        assert Hybrid(path)(model, x, eps, torch.tensor([0.2, 0.5, 0.9])).isfinite().all()
        with pytest.raises(ValueError, match="the bound is infinite where alpha = 0, as at t = 0 of"):
            Hybrid(path)(model, x, eps, torch.tensor([0.0, 0.5, 0.9]))
    assert Hybrid(PATH)(model, x[:0], eps[:0], torch.zeros(0)).shape == (0,)
