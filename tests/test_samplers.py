"""Laws of solvers, of w(t), of noise and of guidance."""

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sitkit.interpolants import GVP, VP, Interpolant, Linear
from sitkit.samplers import (
    KL,
    SDE,
    ClassifierFree,
    Constant,
    Counted,
    Diffusion,
    Euler,
    EulerMaruyama,
    Heun,
    Keyed,
    Mean,
    OneStep,
    Sigma,
    SineSquared,
    sample,
    white,
)
from worlds import PATHS, RING, Gaussian, Mixture, Quadratic, slope

WORLD = Gaussian(mean=1.5, std=0.5)
GRIDS = [16, 32, 64, 128]


def diffusions(path: Interpolant) -> dict[str, Diffusion]:
    return {
        "constant": Constant(0.7),
        "sigma": Sigma(path, 2.0),
        "sine": SineSquared(1.3),
        "kl": KL(path),
        "own": lambda t: 4 * t * (1 - t),
    }


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("solver", [Euler, Heun])
def test_ode_solvers_have_their_stated_order(path: Interpolant, solver: type[Euler] | type[Heun]) -> None:
    x = doubles(-1.0, 0.0, 2.0)[:, None]
    ends = doubles(0.1, 0.9)
    exact = WORLD.flow(path, x, *ends)
    errors = []
    for steps in GRIDS:
        times = torch.linspace(0.1, 0.9, steps + 1, dtype=torch.float64)
        reached = sample(solver(WORLD.velocity(path)), x, times)
        errors.append(float((reached - exact).abs().max()))
    assert slope(GRIDS, errors) == pytest.approx(solver.order, abs=0.15)


def propagate(
    solver_of_noise: Callable[..., OneStep], times: Tensor, mean: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor]:
    """Carry a Gaussian through a chain of steps that are affine in state and noise, exactly."""

    def step(x: float, z: float, t: Tensor, s: Tensor) -> Tensor:
        solver = solver_of_noise(lambda x, t, s: torch.full_like(x, z))
        return solver.step(torch.full((1, 1), x, dtype=torch.float64), t, s)[0, 0]

    for t, s in itertools.pairwise(times):
        still = step(0, 0, t, s)
        mean, variance = (
            still + (step(1, 0, t, s) - still) * mean,
            (step(1, 0, t, s) - still) ** 2 * variance + (step(0, 1, t, s) - still) ** 2,
        )
    return mean, variance


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("name", diffusions(Linear()))
def test_every_w_keeps_the_marginal_at_the_stated_weak_order(path: Interpolant, name: str) -> None:
    sde = SDE(WORLD.velocity(path), path, diffusions(path)[name])
    errors = []
    start, end = doubles(0.1, 0.9)
    (mean, std), (exact_mean, exact_std) = WORLD.moments(path, start), WORLD.moments(path, end)
    grids = [64, 128, 256, 512]
    for steps in grids:
        times = torch.linspace(0.1, 0.9, steps + 1, dtype=torch.float64)
        reached = propagate(lambda noise: EulerMaruyama(sde, noise), times, mean, std**2)
        errors.append(float((reached[0] - exact_mean).abs() + (reached[1] - exact_std**2).abs()))
    assert slope(grids, errors) == pytest.approx(EulerMaruyama.order, abs=0.15)
    assert errors[-1] < 0.02


@given(st.sampled_from(PATHS), st.integers(2, 9), st.integers(0, 99))
def test_no_diffusion_is_the_ode_bit_for_bit(path, steps, seed) -> None:  # type: ignore[no-untyped-def]
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(seed))
    times = torch.linspace(0, 0.97, steps)
    velocity = RING.velocity(path)
    still = SDE(velocity, path, Constant(0.0))
    by_ode = sample(Euler(velocity), x, times)
    assert torch.equal(sample(EulerMaruyama(still), x, times, last=Mean(still)), by_ode)
    assert torch.equal(sample(EulerMaruyama(still), x, times), by_ode)


@pytest.mark.parametrize("path", [Linear(), GVP(), VP()], ids=repr)
@pytest.mark.parametrize("name", ["sigma", "sine", "own"])
def test_stochastic_samples_of_a_mixture_have_its_moments(path: Interpolant, name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    world = Mixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=torch.float64), 0.3)
    x = torch.randn(20_000, 2, generator=generator, dtype=torch.float64)
    sde = SDE(world.velocity(path), path, diffusions(path)[name])
    times = torch.cat([torch.linspace(0, 0.96, 100), torch.tensor([1.0])]).double()
    reached = sample(EulerMaruyama(sde, Keyed(0, torch.arange(len(x)))), x, times, last=Mean(sde))
    fresh = world.draw(200_000, generator)
    torch.testing.assert_close(reached.mean(0), fresh.mean(0), rtol=0, atol=0.04)
    torch.testing.assert_close(torch.cov(reached.T), torch.cov(fresh.T), rtol=0, atol=0.04)


@pytest.mark.parametrize(("solver", "calls"), [(Euler, 1), (Heun, 2)])
def test_ode_steps_cost_what_they_say(solver: Callable[..., OneStep], calls: int) -> None:
    field = Counted(RING.velocity(Linear()))
    sample(solver(field), torch.randn(6, 2), torch.linspace(0, 0.9, 11))
    assert (field.calls, field.rows) == (10 * calls, 10 * calls * 6)


def test_a_stochastic_step_costs_one_call() -> None:
    field = Counted(RING.velocity(Linear()))
    sde = SDE(field, Linear(), Sigma(Linear()))
    sample(EulerMaruyama(sde), torch.randn(6, 2), torch.linspace(0, 1, 11), last=Mean(sde))
    assert field.calls == 10


@pytest.mark.parametrize("solver", [Euler, Heun])
def test_odes_run_both_ways(solver: Callable[..., OneStep]) -> None:
    x = torch.randn(5, 2, dtype=torch.float64)
    times = torch.linspace(0.05, 0.95, 400, dtype=torch.float64)
    velocity = RING.velocity(GVP())
    there = sample(solver(velocity), x, times)
    torch.testing.assert_close(sample(solver(velocity), there, times.flip(0)), x, rtol=0, atol=0.05)


def test_a_solver_yields_the_state_at_every_time() -> None:
    x = torch.randn(5, 2)
    states = [*Euler(RING.velocity(Linear()))(x, torch.linspace(0, 0.5, 4))]
    assert len(states) == 4
    assert states[0] is x


def test_samples_keep_no_gradients() -> None:
    scale = torch.ones((), requires_grad=True)
    assert not sample(Euler(lambda x, t: scale * x), torch.randn(2, 2), torch.tensor([0.0, 1.0])).requires_grad


@pytest.mark.parametrize("times", [[0.5], [0.0, 0.5, 0.4], [0.0, 0.0], [0.0, float("nan")], [[0.0, 1.0]]])
def test_what_is_no_grid_is_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match="times must"):
        sample(Euler(lambda x, t: x), torch.randn(2, 2), torch.tensor(times))


def test_sdes_do_not_run_backwards() -> None:
    sde = SDE(RING.velocity(Linear()), Linear(), Constant(1.0))
    with pytest.raises(ValueError, match="times must rise"):
        sample(EulerMaruyama(sde), torch.randn(2, 2), torch.tensor([0.9, 0.1]))


@pytest.mark.parametrize("path", [Linear(), GVP(), Quadratic()], ids=repr)
def test_kl_from_time_zero_is_refused_and_from_just_after_is_finite(path: Interpolant) -> None:
    sde = SDE(RING.velocity(path), path, KL(path))
    x = torch.randn(64, 2)
    with pytest.raises(ValueError, match=r"w\(t\) must be finite"):
        sample(EulerMaruyama(sde), x, torch.linspace(0, 0.96, 11))
    assert sample(EulerMaruyama(sde), x, torch.linspace(1e-3, 0.96, 11)).isfinite().all()


def test_the_mean_step_is_the_stochastic_one_without_its_noise() -> None:
    x, t, s = torch.randn(4, 2), torch.tensor(0.6), torch.tensor(0.7)
    sde = SDE(RING.velocity(GVP()), GVP(), Sigma(GVP()))
    torch.testing.assert_close(Mean(sde).step(x, t, s), EulerMaruyama(sde, noise=lambda x, t, s: 0 * x).step(x, t, s))


def test_negative_diffusions_are_refused() -> None:
    sde = SDE(RING.velocity(Linear()), Linear(), lambda t: t - 0.5)
    with pytest.raises(ValueError, match=r"w\(t\) must be finite and >= 0"):
        sample(EulerMaruyama(sde), torch.randn(2, 2), torch.linspace(0, 0.9, 5))
    for make in (Constant, SineSquared, lambda scale: Sigma(Linear(), scale), lambda scale: KL(Linear(), scale)):
        with pytest.raises(ValueError, match="at least 0"):
            make(-1.0)


def test_kl_is_beta_on_the_variance_preserving_path() -> None:
    path = VP()
    t = torch.linspace(0, 0.99, 50, dtype=torch.float64)
    torch.testing.assert_close(KL(path)(t), 0.1 + (1 - t) * 19.9, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_diffusions_are_their_formulae(path: Interpolant) -> None:
    t = doubles(0.1, 0.4, 0.9)
    alpha, sigma = path.alpha(t), path.sigma(t)
    growth = path.alpha_dot(t) * sigma / alpha - path.sigma_dot(t)
    torch.testing.assert_close(KL(path, 3.0)(t), 3 * 2 * growth * sigma)
    torch.testing.assert_close(Sigma(path, 3.0)(t), 3 * sigma)
    torch.testing.assert_close(SineSquared(3.0)(t), 3 * torch.sin(torch.pi * t) ** 2)
    torch.testing.assert_close(Constant(3.0)(t), torch.full_like(t, 3.0))


def test_an_sde_takes_times_of_rows_as_well_as_one() -> None:
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
    with pytest.raises(ValueError, match="3 sample numbers, and x has 2 rows"):
        noise(x[:2], torch.tensor(0.25), torch.tensor(0.5))


def test_white_noise_follows_the_global_generator() -> None:
    x, t = torch.zeros(4, 2), torch.tensor(0.5)
    torch.manual_seed(0)
    first = white(x, t, t)
    torch.manual_seed(0)
    assert torch.equal(first, white(x, t, t))


def network(x: Tensor, t: Tensor, /, *, y: Tensor) -> Tensor:
    """Stand in for a conditional network: each label its own field."""
    return x * (1 + y.reshape(-1, *[1] * (x.ndim - 1))) + t.reshape(-1, *[1] * (x.ndim - 1))


@given(st.floats(-2, 6), st.integers(0, 99), st.booleans())
def test_guidance_is_the_mixture_of_the_two_fields(scale, seed, own_null) -> None:  # type: ignore[no-untyped-def]
    x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    t, y = torch.full((4,), 0.3, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    null = torch.full((4,), 9) if own_null else 9
    conditional, unconditional = network(x, t, y=y), network(x, t, y=torch.full((4,), 9))
    mixture = unconditional + scale * (conditional - unconditional)
    torch.testing.assert_close(ClassifierFree(network, y, null, scale)(x, t), mixture)
    first = ClassifierFree(network, y, null, scale, channels=1)(x, t)
    torch.testing.assert_close(first[:, :1], mixture[:, :1])
    torch.testing.assert_close(first[:, 1:], conditional[:, 1:])


def test_guidance_acts_in_its_interval_only_and_costs_two_rows_there() -> None:
    x, y = torch.randn(5, 2), torch.arange(5)
    t = torch.tensor([0.1, 0.2, 0.5, 0.8, 0.9])
    counted = Counted(network)
    guided = ClassifierFree(counted, y, 9, 3.0, interval=(0.2, 0.8))(x, t)
    assert (counted.calls, counted.rows) == (1, 5 + 3)
    everywhere = ClassifierFree(network, y, 9, 3.0)(x, t)
    inside = (t >= 0.2) & (t <= 0.8)
    torch.testing.assert_close(guided[inside], everywhere[inside])
    assert torch.equal(guided[~inside], network(x, t, y=y)[~inside])


def test_guidance_of_scale_one_is_the_conditional_field_at_its_cost() -> None:
    x, t, y = torch.randn(5, 2), torch.full((5,), 0.5), torch.arange(5)
    counted = Counted(network)
    assert torch.equal(ClassifierFree(counted, y, 9, 1.0)(x, t), network(x, t, y=y))
    assert counted.rows == 5


def test_guidance_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="low <= high"):
        ClassifierFree(network, torch.arange(3), 9, 2.0, interval=(0.7, 0.2))
    with pytest.raises(ValueError, match="3 labels, and x has 2 rows"):
        ClassifierFree(network, torch.arange(3), 9, 2.0)(torch.zeros(2, 2), torch.zeros(2))


def test_a_step_compiles_whole() -> None:
    x, t, s = torch.randn(8, 2), torch.tensor(0.3), torch.tensor(0.4)
    for path in PATHS:
        torch.compiler.reset()
        sde = SDE(lambda x, t: x.cos() * t[:, None], path, Sigma(path))
        for solver in (Heun(sde.velocity), EulerMaruyama(sde, noise=lambda x, t, s: torch.ones_like(x))):
            compiled = torch.compile(solver.step, fullgraph=True, backend="eager")
            torch.testing.assert_close(compiled(x, t, s), solver.step(x, t, s))
