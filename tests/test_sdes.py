"""Laws of SDEs: w(t), marginals that do not depend on w, orders, and the limit without noise."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from propagation import propagate
from torch import Tensor

from sitkit.backbones import Mixture
from sitkit.interpolants import DDPM, GVP, VP, Interpolant, Linear
from sitkit.samplers import (
    KL,
    SDE,
    Ancestral,
    Brownian,
    Constant,
    Counted,
    Diffusion,
    Euler,
    EulerMaruyama,
    Exponential,
    ExponentialEuler,
    Heun,
    Keyed,
    KLEta,
    Mean,
    NoiseSource,
    OneStep,
    RaisedCosine,
    Sigma,
    SineSquared,
    StochasticHeun,
    Tweedie,
    Window,
    plan,
    sample,
)
from worlds import FROM_NOISE, PATHS, RING, Gaussian, doubles, random_mixture, slope

WORLD = Gaussian(mean=1.5, std=0.5)
STOCHASTIC = (EulerMaruyama, StochasticHeun)
GRIDS = [8, 16, 32, 64]
STEPS = [64, 128, 256]


def diffusions(path: Interpolant) -> dict[str, Diffusion]:
    return {
        "constant": Constant(0.7),
        "sigma": Sigma(path, 2.0),
        "sine": SineSquared(1.3),
        "cosine": RaisedCosine(0.8),
        "kl": KL(path),
        "kl_eta": KLEta(path, 0.3, lambda t: 1 + t),
        "own": lambda t: 4 * t * (1 - t),
    }


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("name", diffusions(Linear()))
@pytest.mark.parametrize("solver", STOCHASTIC)
def test_every_w_keeps_the_marginal_at_the_stated_weak_order(
    path: Interpolant, name: str, solver: type[EulerMaruyama] | type[StochasticHeun]
) -> None:
    sde = SDE(WORLD.velocity(path), path, diffusions(path)[name])
    errors = [marginal_error(lambda noise: solver(sde, noise), path, steps) for steps in STEPS]
    assert slope(STEPS, errors) == pytest.approx(solver.order, abs=0.15)
    assert errors[-1] < 0.03


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_ancestral_steps_keep_the_marginal_at_the_stated_weak_order(path: Interpolant) -> None:
    velocity = WORLD.velocity(path)
    errors = [marginal_error(lambda noise: Ancestral(velocity, path, noise), path, n) for n in STEPS]
    assert slope(STEPS, errors) == pytest.approx(Ancestral.order, abs=0.15)


def marginal_error(solver_of_noise: Callable[[NoiseSource], OneStep], path: Interpolant, steps: int) -> float:
    """Return the largest error of mean and variance, at any time, of a chain over [0.1, 0.9]."""
    times = torch.linspace(0.1, 0.9, steps + 1, dtype=torch.float64)
    means, stds = WORLD.moments(path, times)
    chain = propagate(solver_of_noise, times, means[0], stds[0] ** 2)
    reached = [torch.stack(values) for values in zip(*chain, strict=True)]
    return float(((reached[0] - means[1:]).abs() + (reached[1] - stds[1:] ** 2).abs()).max())


@given(st.sampled_from(PATHS), st.integers(2, 9), st.integers(0, 99))
def test_without_diffusion_the_sde_is_the_ode_bit_for_bit(path, steps, seed) -> None:  # type: ignore[no-untyped-def]
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(seed))
    times = torch.linspace(0, 0.97, steps)
    velocity = RING.velocity(path)
    still = SDE(velocity, path, Constant(0.0))
    by_ode = sample(Euler(velocity), x, times)
    assert torch.equal(sample(EulerMaruyama(still), x, times, last=Mean(still)), by_ode)
    assert torch.equal(sample(EulerMaruyama(still), x, times), by_ode)
    assert torch.equal(sample(StochasticHeun(still), x, times), sample(Heun(velocity), x, times))


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("name", ["sigma", "sine", "kl", "kl_eta", "own"])
def test_stochastic_samples_of_a_mixture_have_its_moments(path: Interpolant, name: str) -> None:
    world, generator = random_mixture(3, 2, seed=2), torch.Generator().manual_seed(0)
    start = 1e-3
    x = world.along(path, start).draw(4_000, generator)
    sde = SDE(world.velocity(path), path, diffusions(path)[name])
    times = torch.cat([start + (0.96 - start) * torch.linspace(0, 1, 60) ** 2, torch.tensor([1.0])]).double()
    solver = StochasticHeun if name == "sigma" else EulerMaruyama
    reached = sample(solver(sde, Keyed(0, torch.arange(len(x)))), x, times, last=Mean(sde))
    mean, covariance = mixture_moments(world)
    torch.testing.assert_close(reached.mean(0), mean, rtol=0, atol=0.06)
    torch.testing.assert_close(torch.cov(reached.T), covariance, rtol=0, atol=0.08)


def mixture_moments(world: Mixture) -> tuple[Tensor, Tensor]:
    """Return the exact mean and covariance."""
    mean = (world.weights[:, None] * world.means).sum(0)
    gaps = world.means - mean
    return mean, (world.weights[:, None, None] * (world.covariances + gaps[:, :, None] * gaps[:, None])).sum(0)


@pytest.mark.parametrize("path", FROM_NOISE, ids=repr)
def test_kl_from_just_after_the_noise_keeps_the_marginal(path: Interpolant) -> None:
    """From t = 1e-3; at t = 0 the official code divides by zero. Within 4 standard errors of the exact moments."""
    world, generator = random_mixture(3, 2, seed=3), torch.Generator().manual_seed(1)
    count, end = 5_000, 0.9
    x = world.along(path, 1e-3).draw(count, generator)
    sde = SDE(world.velocity(path), path, KL(path))
    times = 1e-3 * (end / 1e-3) ** torch.linspace(0, 1, 300, dtype=torch.float64)
    times = (times + torch.linspace(1e-3, end, 300, dtype=torch.float64)) / 2
    reached = sample(EulerMaruyama(sde, Keyed(0, torch.arange(count))), x, times)
    mean, covariance = mixture_moments(world.along(path, end))
    centred = reached - mean
    for values, expected in ((reached, mean), (centred[:, :, None] * centred[:, None], covariance)):
        errors = values.std(0) / count**0.5
        assert ((values.mean(0) - expected).abs() < 4 * errors).all()


def test_strong_convergence_on_one_brownian_path() -> None:
    """Noise that does not depend on the state: the path itself converges, at the first order of the step."""
    path = GVP()
    sde = SDE(WORLD.velocity(path), path, SineSquared(1.5))
    x = torch.randn(100, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = Brownian(0, torch.arange(100), levels=7)
    for solver in STOCHASTIC:
        ends = [sample(solver(sde, noise), x, torch.linspace(0, 0.875, 7 * n // 8 + 1).double()) for n in (*GRIDS, 128)]
        gaps = [float((coarse - fine).abs().mean()) for coarse, fine in itertools.pairwise(ends)]
        assert slope(GRIDS, gaps) > 0.85
        assert gaps[-1] < 0.02
    elsewhere = sample(EulerMaruyama(sde, Brownian(1, noise.index)), x, torch.linspace(0, 0.875, 57).double())
    assert (elsewhere - ends[-1]).abs().mean() > 0.1  # another path, another end


def test_without_a_refined_path_there_is_no_strong_convergence() -> None:
    path = GVP()
    sde = SDE(WORLD.velocity(path), path, SineSquared(1.5))
    x = torch.zeros(200, 1, dtype=torch.float64)
    noise = Keyed(0, torch.arange(200))
    ends = [sample(EulerMaruyama(sde, noise), x, torch.linspace(0, 0.875, n + 1)) for n in (64, 128)]
    assert (ends[0] - ends[1]).abs().mean() > 0.1


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_kl_eta_lies_between_its_limits(path: Interpolant) -> None:
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    curve: Diffusion = lambda t: 2 + torch.sin(t)  # noqa: E731
    kl = KL(path)(t)
    torch.testing.assert_close(KLEta(path, 0.0, curve)(t), kl)
    torch.testing.assert_close(KLEta(path, 0.7, curve)(t), kl * (curve(t) / (curve(t) + 1.4 * kl**2)).sqrt())
    torch.testing.assert_close(KLEta(path, 1e9, curve)(t), (curve(t) / 2e9).sqrt(), rtol=1e-3, atol=0)
    for eta in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="eta must be finite"):
            KLEta(path, eta, curve)


@pytest.mark.parametrize("path", FROM_NOISE, ids=repr)
def test_kl_eta_is_finite_at_both_ends(path: Interpolant) -> None:
    w = KLEta(path, 0.5, lambda t: 3 - t)
    torch.testing.assert_close(w(doubles(0.0, 1.0)), doubles(3**0.5, 0.0))


def test_stochastic_steps_have_their_stated_nfe() -> None:
    field = Counted(RING.velocity(Linear()))
    sde = SDE(field, Linear(), Sigma(Linear()))
    sample(EulerMaruyama(sde), torch.randn(6, 2), torch.linspace(0, 1, 11), last=Mean(sde))
    assert field.calls == 10
    sample(StochasticHeun(sde), torch.randn(6, 2), torch.linspace(0, 1, 11), last=Tweedie(field, Linear()))
    assert field.calls == 10 + 9 * 2 + 1


def test_sdes_do_not_run_backwards() -> None:
    sde = SDE(RING.velocity(Linear()), Linear(), Constant(1.0))
    for solver in (EulerMaruyama(sde), StochasticHeun(sde), Ancestral(sde.velocity, Linear())):
        with pytest.raises(ValueError, match="strictly increasing or decreasing"):
            list(solver(torch.randn(2, 2), torch.tensor([0.1, 0.5, 0.4])))
        with pytest.raises(ValueError, match="times must increase"):
            sample(solver, torch.randn(2, 2), torch.tensor([0.9, 0.1]))


@pytest.mark.parametrize("path", FROM_NOISE, ids=repr)
def test_kl_from_time_zero_is_refused_and_from_just_after_is_finite(path: Interpolant) -> None:
    sde = SDE(RING.velocity(path), path, KL(path))
    x = torch.randn(64, 2)
    with pytest.raises(ValueError, match=r"w\(t\) must be finite"):
        sample(EulerMaruyama(sde), x, torch.linspace(0, 0.96, 11))
    with pytest.raises(ValueError, match=r"w\(t\) must be finite"):
        sde(x[:2], torch.tensor([0.0, 0.5]))
    assert sample(EulerMaruyama(sde), x, torch.linspace(1e-3, 0.96, 11)).isfinite().all()


def test_the_mean_step_is_the_stochastic_one_without_its_noise() -> None:
    x, t, s = torch.randn(4, 2), torch.tensor(0.6), torch.tensor(0.7)
    sde = SDE(RING.velocity(GVP()), GVP(), Sigma(GVP()))
    torch.testing.assert_close(Mean(sde).step(x, t, s), EulerMaruyama(sde, noise=lambda x, t, s: 0 * x).step(x, t, s))


def test_negative_diffusions_are_refused() -> None:
    sde = SDE(RING.velocity(Linear()), Linear(), lambda t: t - 0.5)
    with pytest.raises(ValueError, match=r"w\(t\) must be finite and >= 0"):
        sample(EulerMaruyama(sde), torch.randn(2, 2), torch.linspace(0, 0.9, 5))
    for make in (
        Constant,
        SineSquared,
        RaisedCosine,
        lambda scale: Sigma(Linear(), scale),
        lambda scale: KL(Linear(), scale),
    ):
        for scale in (-1.0, float("inf"), float("nan")):
            with pytest.raises(ValueError, match="finite and at least 0"):
                make(scale)


def test_kl_is_beta_on_the_variance_preserving_path() -> None:
    path = VP()
    t = torch.linspace(0, 0.99, 50, dtype=torch.float64)
    torch.testing.assert_close(KL(path)(t), 0.1 + (1 - t) * 19.9, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # of torch 2.13's jvp, by itself
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_has_its_limit_where_the_last_noise_leaves_infinitely_fast(dtype: torch.dtype) -> None:
    end = torch.ones((), dtype=dtype)
    chain, few = DDPM(), DDPM(20, 0.03, 0.3)
    for path, beta in ((VP(), 0.1), (VP(0.0, 20.0), 0.0), (VP(2.0, 9.0), 2.0), (Linear(), 0.0), (GVP(), 0.0)):
        torch.testing.assert_close(KL(path, 3.0)(end), (3.0 * beta * torch.ones(())).to(dtype))
    for path in (VP(), chain, few):  # type: ignore[assignment]
        near = KL(path)(doubles(1 - 1e-6, 1 - 2e-6))
        torch.testing.assert_close(KL(path)(end).double(), 2 * near[0] - near[1], rtol=1e-6, atol=0)
        kl = KL(path)(end).double()
        priced = KLEta(path, 0.7, lambda t: torch.full_like(t, 2.0))(end)
        torch.testing.assert_close(priced.double(), kl * (2 / (2 + 1.4 * kl**2)) ** 0.5, rtol=1e-6, atol=0)
        times = torch.tensor([0.3, 0.9, 1.0], dtype=dtype)
        for w in (KL(path), KLEta(path, 0.7, torch.ones_like)):
            assert w(times).dtype == dtype
            with torch.inference_mode():
                torch.testing.assert_close(w(times), torch.func.vmap(w)(times))


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_diffusions_are_their_formulae(path: Interpolant) -> None:
    t = doubles(0.1, 0.4, 0.9)
    alpha, sigma = path.alpha(t), path.sigma(t)
    growth = path.alpha_dot(t) * sigma / alpha - path.sigma_dot(t)
    torch.testing.assert_close(KL(path, 3.0)(t), 3 * 2 * growth * sigma)
    torch.testing.assert_close(Sigma(path, 3.0)(t), 3 * sigma)
    torch.testing.assert_close(SineSquared(3.0)(t), 3 * torch.sin(torch.pi * t) ** 2)
    torch.testing.assert_close(RaisedCosine(3.0)(t), 1.5 * (1 + torch.cos(torch.pi * t)) ** 2)
    torch.testing.assert_close(Constant(3.0)(t), torch.full_like(t, 3.0))
    assert torch.equal(Constant()(t), torch.ones_like(t))
    assert torch.equal(SineSquared()(t), SineSquared(1.0)(t))
    assert torch.equal(RaisedCosine()(t), RaisedCosine(1.0)(t))
    assert torch.equal(Sigma(path)(t), sigma)
    torch.testing.assert_close(KL(path)(t), 2 * growth * sigma)


def test_an_sde_takes_a_time_for_each_row_or_one_for_all() -> None:
    sde = SDE(RING.velocity(Linear()), Linear(), Sigma(Linear()))
    x, t = torch.randn(3, 2), torch.tensor([0.2, 0.5, 0.8])
    drift, w = sde(x, t)
    assert w.shape == t.shape
    for k in range(3):
        alone, w_alone = sde(x[k : k + 1], t[k])
        torch.testing.assert_close(drift[k : k + 1], alone)
        torch.testing.assert_close(w[k], w_alone)


def test_a_constant_may_be_a_plain_number() -> None:
    sde = SDE(RING.velocity(Linear()), Linear(), lambda t: 0.5)  # type: ignore[arg-type, return-value]
    drift, w = sde(torch.randn(3, 2), torch.tensor(0.3))
    assert w == 0.5
    assert drift.isfinite().all()
    assert sde(torch.randn(3, 2), torch.rand(3))[1].tolist() == [0.5] * 3
    drift, w = sde(torch.randn(3, 2), torch.rand(3, dtype=torch.float64))
    assert (drift.dtype, w.dtype) == (torch.float32, torch.float64)


def test_arguments_of_another_kind_are_refused() -> None:
    """An earlier version took the two rows of a velocity for drift and w."""
    path, x, times = Linear(), torch.randn(2, 2), torch.linspace(0.1, 0.9, 5)
    velocity = RING.velocity(path)
    for solver in (EulerMaruyama, StochasticHeun, Mean):
        with pytest.raises(
            ValueError, match=rf"{solver.__name__} takes an SDE, not a field: use {solver.__name__}\(SDE"
        ):
            solver(velocity)  # type: ignore[arg-type]
    made: tuple[Callable[[Any], object], ...] = (
        lambda w: SDE(velocity, path, w),
        lambda w: Exponential(velocity, path, w),
        lambda w: ExponentialEuler(velocity, path, w),
        lambda w: Window(w, (0.0, 1.0)),
        lambda w: plan(velocity, path, w=w, evaluations=3),
    )
    for make in made:
        with pytest.raises(ValueError, match=r"w must be a function of the time, got 0\.5: use .*Constant\(0\.5\)"):
            make(0.5)
    with pytest.raises(ValueError, match=r"times must be a tensor, got list: use torch\.tensor"):
        sample(Euler(velocity), x, [0.1, 0.5])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"times must be tensors, got float: use torch\.tensor\(t\)"):
        Euler(velocity).step(x, 0.1, 0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="times must be tensors, got float"):
        Heun(velocity).step(x, times[0], 0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="states must be a tensor, got ndarray"):
        sample(Euler(velocity), x.numpy(), times)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got Plan: give its fields: sample\(plan\.solver, x, plan\.times\)"):
        sample(plan(velocity, path, evaluations=3), x, times)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`last` must be a one-step solver, .* got Exponential"):
        sample(Euler(velocity), x, times, last=Exponential(velocity, path))  # type: ignore[arg-type]
