"""Transition densities of SDE solvers, trajectories, and windows of noise."""

import math
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from sitkit.interpolants import GVP, VP, Interpolant, Linear
from sitkit.samplers import (
    DDIM,
    KL,
    SDE,
    Ancestral,
    Constant,
    Counted,
    Diffusion,
    Euler,
    EulerMaruyama,
    Exponential,
    ExponentialEuler,
    Heun,
    Keyed,
    NoiseSource,
    Sigma,
    SineSquared,
    StochasticHeun,
    Transition,
    TransitionStep,
    Window,
    column,
    log_probs,
    plan,
    sample,
    trajectory,
    white,
)
from sitkit.samplers.sde import safe_sqrt
from solvers import NOISE, PATH, SOLVERS, STOCHASTIC, TIMES, WORLD, network, start
from worlds import PATHS, Gaussian, doubles, slope

WITH_DENSITY = [name for name in STOCHASTIC if isinstance(SOLVERS[name](network(), NOISE), TransitionStep)]
NOISY = [name for name in WITH_DENSITY if "window" not in name]


def stepping(name: str, dtype: torch.dtype = torch.float32) -> TransitionStep:
    solver = SOLVERS[name](network().to(dtype), NOISE)
    assert isinstance(solver, TransitionStep)
    return solver


def drawn(name: str) -> tuple[TransitionStep, list[Tensor]]:
    solver = stepping(name, torch.float64)
    return solver, trajectory(solver, start(torch.float64), TIMES.double())


def test_the_solvers_with_a_density_are_those_that_the_documentation_names() -> None:
    classes = {type(stepping(name)).__name__ for name in WITH_DENSITY}
    assert classes == {"EulerMaruyama", "ExponentialEuler", "Ancestral", "LearnedAncestral"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", WITH_DENSITY)
def test_a_step_is_the_mean_and_the_noise_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    solver, x = stepping(name, dtype), start(dtype)
    for t, s in ((TIMES[2], TIMES[3]), (torch.linspace(0.1, 0.6, 6), torch.linspace(0.2, 0.9, 6))):
        mean, std = solver.transition(x, t, s)
        assert torch.equal(solver.step(x, t, s), mean + std * NOISE(x.to(mean.dtype), t, s))
        assert mean.dtype == torch.promote_types(dtype, torch.float32)
        assert std.expand_as(mean).shape == mean.shape == x.shape


@pytest.mark.parametrize("name", WITH_DENSITY)
def test_means_of_half_precision_states_are_not_rounded(name: str) -> None:
    solver, x = SOLVERS[name](lambda x, t: x, NOISE), start(torch.bfloat16)
    assert isinstance(solver, TransitionStep)
    mean, std = solver.transition(x, TIMES[2], TIMES[3])
    assert torch.equal(mean, solver.transition(x.float(), TIMES[2], TIMES[3]).mean)
    assert std.dtype in (torch.float32, torch.float64)


@pytest.mark.parametrize("name", WITH_DENSITY)
def test_times_of_rows_have_the_transitions_and_the_noise_of_each_row(name: str) -> None:
    solver, x = stepping(name, torch.float64), start(torch.float64)[:2]
    solver = type(solver)(**{**vars(solver), "noise": Keyed(3, torch.arange(2))})
    t, s = doubles(0.1, 0.5), doubles(0.4, 0.6)
    together, states = solver.transition(x, t, s), solver.step(x, t, s)
    for n in range(2):
        alone = solver.transition(x[n : n + 1], t[n], s[n])
        torch.testing.assert_close(together.mean[n : n + 1], alone.mean)
        torch.testing.assert_close(together.std.expand_as(x)[n : n + 1], alone.std.expand(1, 2))
        by_itself = type(solver)(**{**vars(solver), "noise": Keyed(3, torch.tensor([n]))})
        torch.testing.assert_close(states[n : n + 1], by_itself.step(x[n : n + 1], t[n], s[n]))


@pytest.mark.parametrize("name", NOISY)
def test_densities_are_those_of_torch_distributions(name: str) -> None:
    solver, states = drawn(name)
    found = log_probs(solver, states, TIMES.double())
    for n, (t, s) in enumerate(zip(TIMES.double()[:-1], TIMES.double()[1:], strict=True)):
        mean, std = solver.transition(states[n], t, s)
        expected = Independent(Normal(mean, std.expand_as(mean)), 1).log_prob(states[n + 1])  # type: ignore[no-untyped-call]
        torch.testing.assert_close(found[n], expected)
        z = NOISE(states[n], t, s)
        of_noise = Normal(0.0, 1.0).log_prob(z) - torch.log(std.expand_as(z))  # type: ignore[no-untyped-call]
        torch.testing.assert_close(found[n], of_noise.sum(1))


@pytest.mark.parametrize("shape", [(4,), (0, 2), (1, 3), (2, 1, 2, 3)])
def test_densities_of_states_of_every_shape(shape: tuple[int, ...]) -> None:
    y, mean = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).double()
    rows = (len(mean),) + (1,) * (len(shape) - 1)
    for std in (doubles(0.7)[0], torch.full(rows, 0.7).double(), torch.full(shape, 0.7).double()):
        found = Transition(mean, std).log_prob(y)
        expected = Normal(mean, 0.7).log_prob(y).reshape(len(y), math.prod(shape[1:])).sum(1)  # type: ignore[no-untyped-call]
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("w", [Sigma(PATH, 1.5), Constant(0.7), KL(PATH, 0.4)], ids=str)
@pytest.mark.parametrize("kind", ["euler", "exponential"])
def test_the_mean_log_ratio_is_the_kl_divergence_of_two_paths(w: Diffusion, kind: str) -> None:
    """Of two Gaussian worlds. The expectation over state and noise is exact, by Gauss-Hermite quadrature."""

    def solver(world: Gaussian) -> TransitionStep:
        v = world.velocity(PATH)
        return EulerMaruyama(SDE(v, PATH, w)) if kind == "euler" else ExponentialEuler(v, PATH, w)

    one, other = solver(Gaussian(0.5, 0.6)), solver(Gaussian(-0.3, 0.9))
    times = torch.linspace(0.05, 0.95, 9, dtype=torch.float64)
    nodes, weights = (torch.from_numpy(values) for values in np.polynomial.hermite_e.hermegauss(8))
    weights = weights / weights.sum()
    mean, variance, total, expected = doubles(0.2)[0], doubles(0.8)[0], doubles(0.0)[0], doubles(0.0)[0]
    for t, s in pairwise(times):
        x = (mean + variance.sqrt() * nodes).repeat_interleave(8)[:, None]
        own, others = one.transition(x, t, s), other.transition(x, t, s)
        y = own.mean + own.std * nodes.repeat(8)[:, None]
        ratio = log_probs(one, [x, y], torch.stack([t, s])) - log_probs(other, [x, y], torch.stack([t, s]))
        total = total + (ratio[0] * torch.outer(weights, weights).flatten()).sum()
        # closed form: both means are affine in x, so their difference is too
        points = doubles(0, 1)[:, None]
        a, b = one.transition(points, t, s).mean[:, 0], other.transition(points, t, s).mean[:, 0]
        shift, slope_of_x = a[0] - b[0], (a[1] - a[0]) - (b[1] - b[0])
        expected = expected + ((shift + slope_of_x * mean) ** 2 + slope_of_x**2 * variance) / (2 * own.std**2)
        torch.testing.assert_close(own.std, others.std)
        mean, variance = a[0] + (a[1] - a[0]) * mean, (a[1] - a[0]) ** 2 * variance + own.std**2
    assert expected > 0.01
    torch.testing.assert_close(total, expected)


def test_the_kl_divergence_of_many_steps_is_that_of_the_sdes() -> None:
    """Girsanov: int E[(difference of drifts)^2] / (2 w) dt. The error is of the order of the steps."""
    one, other, w = Gaussian(0.5, 0.6), Gaussian(-0.3, 0.9), Sigma(PATH)
    (v, u), edges = (one.velocity(PATH), other.velocity(PATH)), (0.1, 0.9)
    points = doubles(0, 1)[:, None]

    def rate(t: Tensor) -> Tensor:
        mean, std = one.moments(PATH, t)
        difference = SDE(v, PATH, w)(points, t)[0] - SDE(u, PATH, w)(points, t)[0]
        shift, by_x = difference[0], difference[1] - difference[0]
        return ((shift + by_x * mean) ** 2 + (by_x * std) ** 2) / (2 * w(t))

    fine = torch.linspace(*edges, 2001, dtype=torch.float64)
    exact = torch.trapezoid(torch.cat([rate(t) for t in fine]), fine)
    errors = []
    for steps in (20, 40, 80, 160):
        times, total = torch.linspace(*edges, steps + 1, dtype=torch.float64), doubles(0.0)[0]
        mean, std = one.moments(PATH, times[0])
        variance = std**2
        for t, s in pairwise(times):
            own, others = (EulerMaruyama(SDE(f, PATH, w)).transition(points, t, s) for f in (v, u))
            difference = (own.mean - others.mean)[:, 0]
            by_x, slope_of_x = (own.mean[1] - own.mean[0])[0], difference[1] - difference[0]
            moments = (difference[0] + slope_of_x * mean) ** 2 + slope_of_x**2 * variance
            total = total + moments / (2 * own.std**2)
            mean, variance = own.mean[0, 0] + by_x * mean, by_x**2 * variance + own.std**2
        errors.append(float((total - exact).abs()))
    assert slope([20, 40, 80, 160], errors) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("name", NOISY)
def test_gradients_of_densities_are_those_of_finite_differences(name: str) -> None:
    model = network().double()
    solver = SOLVERS[name](model, NOISE)
    states = [state.detach() for state in drawn(name)[1]]
    weights = torch.linspace(1, 2, 6 * 6, dtype=torch.float64).reshape(6, 6)

    def total(times: Tensor, first: Tensor) -> Tensor:
        return (log_probs(solver, [first, *states[1:]], times) * weights).sum()

    times, first = TIMES.double().requires_grad_(), states[0].clone().requires_grad_()
    parameter = model.out.weight
    by_times, by_state, by_weight = torch.autograd.grad(total(times, first), (times, first, parameter))
    h = 1e-6
    with torch.no_grad():
        for n in (0, 3, 6):
            unit = h * torch.eye(7)[n].double()
            numeric = (total(times + unit, first) - total(times - unit, first)) / (2 * h)
            torch.testing.assert_close(by_times[n], numeric, rtol=1e-4, atol=1e-4)
        unit = torch.zeros_like(first)
        unit[2, 1] = h
        numeric = (total(times, first + unit) - total(times, first - unit)) / (2 * h)
        torch.testing.assert_close(by_state[2, 1], numeric, rtol=1e-5, atol=1e-5)
        parameter[1, 3] += h
        above = total(times, first)
        parameter[1, 3] -= 2 * h
        below = total(times, first)
    torch.testing.assert_close(by_weight[1, 3], (above - below) / (2 * h), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["euler", "exponential"])
def test_the_scale_of_w_has_its_gradient(kind: str) -> None:
    model, states = network().double(), drawn("EulerMaruyama")[1]

    def total(scale: Tensor) -> Tensor:
        w = lambda t: scale * (1 - t)  # noqa: E731
        solver = EulerMaruyama(SDE(model, PATH, w)) if kind == "euler" else ExponentialEuler(model, PATH, w)
        return log_probs(solver, states, TIMES.double()).sum()

    scale, h = doubles(0.7)[0].requires_grad_(), 1e-6
    (gradient,) = torch.autograd.grad(total(scale), scale)
    torch.testing.assert_close(gradient, ((total(scale + h) - total(scale - h)) / (2 * h)).detach())


@pytest.mark.parametrize("name", NOISY)
def test_a_step_costs_one_evaluation(name: str) -> None:
    field = Counted(network())
    solver = SOLVERS[name](field, NOISE)
    states = trajectory(solver, start(), TIMES)
    assert field.calls == len(TIMES) - 1
    log_probs(solver, states, TIMES)
    assert field.calls == 2 * (len(TIMES) - 1)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("with_last", [False, True])
def test_a_trajectory_ends_at_the_sample_and_has_gradients(name: str, with_last: bool) -> None:
    model, x = network(), start().requires_grad_()
    last = Euler(model) if with_last else None
    solver = SOLVERS[name](model, NOISE)
    states = trajectory(solver, x, TIMES, last)
    assert len(states) == len(TIMES)
    assert states[0] is x
    assert torch.equal(states[-1], sample(solver, x, TIMES, last))
    assert not sample(solver, x, TIMES, last).requires_grad
    for state, reached in zip(states, solver(x, TIMES if last is None else TIMES[:-1]), strict=False):
        assert torch.equal(state, reached)
    gradient, weight = torch.autograd.grad(states[-1].sum(), (x, model.out.weight))
    assert (gradient != 0).all()
    assert (weight != 0).any()


def outside(window: Window) -> list[Tensor]:
    low, high = window.interval
    return [torch.linspace(0.05, low - 0.01, 4), torch.linspace(high + 0.01, 1, 4)]


@pytest.mark.parametrize("times", outside(Window(KL(PATH), (0.3, 0.6))), ids=["before", "after"])
def test_a_window_is_the_ode_outside_bit_for_bit(times: Tensor) -> None:
    velocity, x, window = WORLD.velocity(PATH), start(), Window(KL(PATH), (0.3, 0.6))
    sde = SDE(velocity, PATH, window)
    assert torch.equal(sample(EulerMaruyama(sde), x, times), sample(Euler(velocity), x, times))
    assert torch.equal(sample(StochasticHeun(sde), x, times), sample(Heun(velocity), x, times))
    for order in (1, 2, 3):
        ode, windowed = (Exponential(velocity, PATH, w, order) for w in (None, window))
        assert torch.equal(sample(windowed, x, times), sample(ode, x, times))
    windowed_step, step = ExponentialEuler(velocity, PATH, window), ExponentialEuler(velocity, PATH)
    assert torch.equal(sample(windowed_step, x, times), sample(step, x, times))


def test_a_window_is_w_inside_with_its_ends() -> None:
    asked: list[Tensor] = []

    def w(t: Tensor) -> Tensor:
        asked.append(t)
        return 1 + t

    for dtype in (torch.float32, torch.float64):
        t = torch.tensor([0.0, 0.299, 0.3, 0.5, 0.6, 0.601, 1.0], dtype=dtype)
        values = Window(w, (0.3, 0.6))(t)
        assert torch.equal(values, torch.where((t >= 0.3) & (t <= 0.6), 1 + t, 0))
        assert values.dtype == dtype
    assert min(float(t.min()) for t in asked) >= 0.299999
    assert max(float(t.max()) for t in asked) <= 0.600001
    assert float(Window(KL(PATH), (0.2, 1.0))(torch.zeros(()))) == 0  # where w itself is infinite
    assert Window(w, (0.3, 0.6)).jumps == (0.3, 0.6)
    assert Window(Window(w, (0.4, 1.0)), (0.0, 0.6)).jumps == (0.4, 0.6)
    assert {0.3, 0.6} <= {*plan(network(), PATH, w=Window(w, (0.3, 0.6)), evaluations=8).times.tolist()}
    assert not {0.3, 0.6} & {*plan(network(), PATH, evaluations=8).times.tolist()}


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_a_window_keeps_the_marginal(path: Interpolant) -> None:
    """The mean and the variance of a Gaussian, carried exactly, as `tests/test_sdes.py` does for every w."""
    world, points = Gaussian(1.5, 0.5), doubles(0, 1)[:, None]
    times = torch.linspace(0.1, 0.9, 161, dtype=torch.float64)
    solver = ExponentialEuler(world.velocity(path), path, Window(SineSquared(2.0), (0.3, 0.6)))
    (mean, std), noisy = world.moments(path, times[0]), 0
    variance = std**2
    for t, s in pairwise(times):
        reached = solver.transition(points, t, s)
        still, by_x = reached.mean[0, 0], reached.mean[1, 0] - reached.mean[0, 0]
        mean, variance = still + by_x * mean, by_x**2 * variance + reached.std**2
        noisy += int(reached.std > 0)
    assert 55 <= noisy <= 65
    expected_mean, expected_std = world.moments(path, times[-1])
    torch.testing.assert_close(
        torch.stack([mean, variance]), torch.stack([expected_mean, expected_std**2]), rtol=0, atol=5e-3
    )


@pytest.mark.parametrize("times", [torch.linspace(0, 1, 6), torch.linspace(0.1, 0.9, 6)], ids=["whole", "inside"])
@pytest.mark.parametrize("path", [Linear(), GVP(), VP()], ids=repr)
def test_exponential_euler_is_the_exponential_solver_of_order_one(path: Interpolant, times: Tensor) -> None:
    velocity, x, times = WORLD.velocity(path), start(torch.float64), times.double()
    windows = [Window(Sigma(path), interval) for interval in ((0.2, 0.65), (0.41, 0.42), (0.405, 1.0))]
    windows.append(Window(windows[0], (0.21, 0.5)))  # five jumps, three of them in one step
    for w in (None, KL(path), KL(path, 2.0), Sigma(path), SineSquared(), lambda t: t, *windows):
        step = sample(ExponentialEuler(velocity, path, w, noise=NOISE), x, times)
        multistep = sample(Exponential(velocity, path, w, order=1, corrector=False, noise=NOISE), x, times)
        torch.testing.assert_close(step, multistep, rtol=1e-10, atol=1e-10)
    ancestral = sample(Ancestral(velocity, path, NOISE), x, times)
    torch.testing.assert_close(sample(ExponentialEuler(velocity, path, KL(path), noise=NOISE), x, times), ancestral)
    torch.testing.assert_close(
        sample(ExponentialEuler(velocity, path), x, times), sample(DDIM(velocity, path), x, times)
    )
    back = times[:-1].flip(0)  # not from t = 1, where the velocity does not determine the noise
    torch.testing.assert_close(sample(ExponentialEuler(velocity, path), x, back), sample(DDIM(velocity, path), x, back))
    with pytest.raises(ValueError, match="times must increase"):
        sample(ExponentialEuler(velocity, path, KL(path)), x, back)


@pytest.mark.parametrize("interval", [(0.3, 0.6), (0.0, 0.6), (0.3, 1.0), (0.5, 0.5), (0.85, 0.95)])
def test_the_integral_of_a_window_is_exact_where_it_ends_inside_a_step(interval: tuple[float, float]) -> None:
    """For w = sigma on the linear path it is log((1 - low) / (1 - high)), with derivatives at the ends of a step."""
    t, s = doubles(0.1, 0.2, 0.4, 0.0).requires_grad_(), doubles(0.9, 0.5, 0.5, 0.99).requires_grad_()
    low, high = t.clamp(*interval), s.clamp(*interval)
    expected = (1 - s) * safe_sqrt(1 - (1 - high) / (1 - low))
    solver = ExponentialEuler(WORLD.velocity(PATH), PATH, Window(Sigma(PATH), interval))
    found = solver.transition(start(torch.float64)[:4], t, s).std[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    by_times, exact = (torch.autograd.grad(values.sum(), (t, s)) for values in (found, expected))
    torch.testing.assert_close(by_times, exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize(("t", "s"), [(0.0, 1e-12), (0.0, 0.3), (0.2, 0.2 + 1e-6), (0.3, 0.9), (0.9, 1 - 1e-6)])
def test_the_integral_of_w_is_that_of_many_small_steps(path: Interpolant, t: float, s: float) -> None:
    t = max(t, 1e-20 if float(path.alpha_dot(doubles(t))) == 0 else 0.0)  # there the velocity does not give the data
    low, high = torch.logit(doubles(t, s)).tolist()
    z = torch.linspace(max(low, high - 60), high, 40_001, dtype=torch.float64)
    nodes = torch.sigmoid((z[1:] + z[:-1]) / 2)
    for w in (Sigma(path), Constant(0.7), SineSquared(), lambda t: 1 + t):
        cell = (w(nodes) / path.sigma(nodes) ** 2 * (nodes * (1 - nodes))).sum() * z.diff().mean()
        expected = path.sigma(doubles(s)[0]) * (-torch.expm1(-cell)).sqrt()
        found = ExponentialEuler(lambda x, t: x, path, w).transition(start(), *doubles(t, s)).std
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_the_order_one_exponential_solver_has_the_density_too() -> None:
    x, t, s = start(), TIMES[1], TIMES[2]
    found = Exponential(network(), PATH, KL(PATH), order=1, corrector=False).transition(x, t, s)
    for one, other in zip(found, ExponentialEuler(network(), PATH, KL(PATH)).transition(x, t, s), strict=True):
        assert torch.equal(one, other)


def test_a_step_without_density_is_refused() -> None:
    model, x, states = network(), start(), [start()] * len(TIMES)
    for order, corrector in ((2, False), (3, True), (1, True)):
        solver = Exponential(model, PATH, KL(PATH), order, corrector)
        with pytest.raises(ValueError, match=r"depends on earlier steps, .* use ExponentialEuler"):
            solver.transition(x, TIMES[0], TIMES[1])
        with pytest.raises(ValueError, match="depends on earlier steps"):
            log_probs(solver, states, TIMES)
    for name in ("Euler", "Heun", "DDIM", "Mean", "Tweedie", "StochasticHeun"):
        with pytest.raises(ValueError, match=r"has no transition density: use .* EulerMaruyama, ExponentialEuler"):
            log_probs(SOLVERS[name](model, NOISE), states, TIMES)
    for ode in (ExponentialEuler(model, PATH), EulerMaruyama(SDE(model, PATH, Constant(0.0)))):
        with pytest.raises(ValueError, match=r"step 0, from t = 0\.05 to 0\.2: a step with standard deviation 0"):
            log_probs(ode, trajectory(ode, x, TIMES), TIMES)
    windowed = EulerMaruyama(SDE(model, PATH, Window(Sigma(PATH), (0.3, 0.7))), NOISE)
    states = trajectory(windowed, x, TIMES)
    with pytest.raises(ValueError, match="evaluate only steps at which w > 0"):
        log_probs(windowed, states, TIMES)
    assert log_probs(windowed, states[2:6], TIMES[2:6]).shape == (3, 6)
    to_data = torch.linspace(0.5, 1, 3)
    ancestral = Ancestral(WORLD.velocity(PATH), PATH, NOISE)
    with pytest.raises(ValueError, match=r"step 1, from t = 0\.75 to 1: .* leave out a last step to sigma = 0"):
        log_probs(ancestral, trajectory(ancestral, x, to_data), to_data)


def test_states_and_times_that_do_not_fit_are_refused() -> None:
    solver, states = drawn("EulerMaruyama")
    times = TIMES.double()
    with pytest.raises(ValueError, match="one state for each of at least two times, got 6 states, 7 times"):
        log_probs(solver, states[:-1], times)
    with pytest.raises(ValueError, match="got 1 states, 1 times"):
        log_probs(solver, states[:1], times[:1])
    with pytest.raises(ValueError, match="times must increase"):
        log_probs(solver, states, times.flip(0))
    with pytest.raises(ValueError, match=r"must have the shape of the mean, \(6, 2\), got \(6, 3\)"):
        log_probs(solver, [states[0], torch.zeros(6, 3)], times[:2])
    with pytest.raises(ValueError, match=r"must have the shape of the mean, \(6, 2\), got \(1, 2\)"):
        solver.transition(states[0], times[0], times[1]).log_prob(states[1][:1])
    with pytest.raises(ValueError, match=r"interval must be \(low, high\) with low <= high, got \(0.6, 0.3\)"):
        Window(Sigma(PATH), (0.6, 0.3))
    with pytest.raises(ValueError, match="times must have at least two entries"):
        trajectory(solver, states[0], times[:1])


def test_a_stacked_trajectory_has_the_same_densities() -> None:
    solver, states = drawn("EulerMaruyama")
    assert torch.equal(
        log_probs(solver, torch.stack(states), TIMES.double()), log_probs(solver, states, TIMES.double())
    )


def test_the_default_device_of_the_first_call_has_no_effect_on_later_ones() -> None:
    """Constants of the quadrature once stayed on the default device of the first call."""
    code = (
        "import torch; from sitkit.interpolants import Linear; from sitkit.samplers import *\n"
        "x, times, path = torch.ones(2, 2), torch.linspace(0, 1, 4), Linear()\n"
        "for device in ('meta', 'cpu'):\n"
        "    with torch.device(device):\n"
        "        solver = ExponentialEuler(lambda x, t: x, path, Sigma(path), noise=lambda x, t, s: x)\n"
        "        assert sample(solver, x, times).isfinite().all()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 2.0])
def test_gradients_by_inner_times_are_finite_where_the_ratio_of_kl_is_zero(scale: float) -> None:
    """At the ends alpha / sigma is 0 or infinite, and the derivative of a power of its ratio may be too."""
    solver = ExponentialEuler(network().double(), PATH, KL(PATH, scale), noise=lambda x, t, s: torch.ones_like(x))
    x, times, h = start(torch.float64), torch.linspace(0, 1, 5, dtype=torch.float64), 1e-6

    def reached(times: Tensor) -> Tensor:
        return trajectory(solver, x, times)[-1].sum()

    (gradient,) = torch.autograd.grad(reached(leaf := times.clone().requires_grad_()), leaf)
    assert gradient.isfinite().all()
    for n in (1, 2, 3):
        unit = h * torch.eye(5)[n].double()
        numeric = (reached(times + unit) - reached(times - unit)) / (2 * h)
        torch.testing.assert_close(gradient[n], numeric.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("w", [Sigma(PATH), KL(PATH), Window(Sigma(PATH), (0.2, 0.6))], ids=str)
def test_steps_of_no_rows(w: Diffusion) -> None:
    for solver in (ExponentialEuler(network(), PATH, w), EulerMaruyama(SDE(network(), PATH, Sigma(PATH)))):
        none = solver.transition(torch.zeros(0, 2), torch.zeros(0), torch.full((0,), 0.5))
        assert none.log_prob(torch.zeros(0, 2)).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_windows_end_at_times_up_to_their_rounding_error(dtype: torch.dtype) -> None:
    """0.3 is not the fourth of `linspace(0, 1, 11)`, neither in float32 nor in float64."""
    model, x, times = network(), start(), torch.linspace(0, 1, 11, dtype=dtype)
    window = Window(KL(PATH, 0.5), (0.3, 0.7))
    noisy = [n for n in range(10) if EulerMaruyama(SDE(model, PATH, window)).transition(x, *times[n : n + 2]).std > 0]
    assert noisy == [3, 4, 5, 6, 7]  # steps that start in the window
    for solver in (ExponentialEuler(model, PATH, window), Exponential(model, PATH, window, order=1, corrector=False)):
        noisy = [n for n in range(10) if solver.transition(x, *times[n : n + 2]).std > 0]
        assert noisy == [3, 4, 5, 6]  # steps inside of the window
    ode, by_window = (Exponential(model, PATH, w) for w in (None, window))
    for part in (times[:4], times[7:]):
        assert torch.equal(sample(by_window, x, part), sample(ode, x, part))
    for steps in range(1, 101):
        grid = torch.linspace(0, 1, steps + 1, dtype=dtype)
        ends = torch.arange(steps).double() / steps
        assert all(Window(Constant(1.0), (float(end), 1.0))(grid[n]) == 1 for n, end in enumerate(ends))


@pytest.mark.parametrize("w", [KL(PATH), Constant(1.0), Sigma(PATH), Window(Constant(1.0), (0.0, 1.0))], ids=str)
def test_times_outside_of_the_path_or_backwards_are_refused(w: Diffusion) -> None:
    model, x = network(), start()
    sde = SDE(model, PATH, w)
    for solver in (EulerMaruyama(sde), StochasticHeun(sde), ExponentialEuler(model, PATH, w), Ancestral(model, PATH)):
        for t, s in ((-0.1, 0.2), (0.9, 1.1), (0.5, 0.3)):
            with pytest.raises(ValueError, match=r"goes from t to s with 0 <= t <= s <= 1, .* got"):
                solver.step(x, torch.tensor(t), torch.tensor(s))
            with pytest.raises(ValueError, match="must increase"):
                solver.step(x, torch.full((6,), t), torch.full((6,), s))
        with pytest.raises(ValueError, match="must increase"):
            trajectory(solver, x, torch.tensor([0.5, 0.3]), last=solver)
        with pytest.raises(ValueError, match=r"times must be floating point tensors, got 0\.1"):
            solver.step(x, 0.1, torch.tensor(0.2))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"states must be floating point, got torch\.int64"):
            solver.step(x.long(), torch.tensor(0.2), torch.tensor(0.3))


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.01])
def test_noise_at_time_zero_is_forgotten_for_any_scale_of_kl(scale: float) -> None:
    """The integral of w / sigma^2 is infinite, also for a small scale, for which it grows slowly."""
    velocity, x = WORLD.velocity(PATH), start(torch.float64)
    times = torch.linspace(0, 1, 4, dtype=torch.float64)
    for w in (KL(PATH, scale), Window(KL(PATH, scale), (0.0, 1.0)), lambda t: scale * KL(PATH)(t)):
        mean, std = ExponentialEuler(velocity, PATH, w).transition(x, times[0], times[1])
        torch.testing.assert_close(std, PATH.sigma(times[1]))
        data = PATH.data_from_velocity(velocity(x, times[0].expand(6)), x, times[0])
        torch.testing.assert_close(mean, PATH.alpha(times[1]) * data)
        multistep = Exponential(velocity, PATH, w, order=1, corrector=False, noise=NOISE)
        by_step = sample(ExponentialEuler(velocity, PATH, w, noise=NOISE), x, times)
        torch.testing.assert_close(sample(multistep, x, times), by_step)


def test_a_w_that_is_integrable_at_time_zero_keeps_a_part_of_the_noise() -> None:
    """For w / sigma^2 = 0.1 t^-1/2, the integral from 0 to 1/4 is 0.1."""
    solver = ExponentialEuler(network().double(), PATH, lambda t: 0.1 * t**-0.5 * (1 - t) ** 2)
    std = solver.transition(start(torch.float64), *doubles(0, 0.25)).std
    torch.testing.assert_close(std, 0.75 * torch.sqrt(-torch.expm1(doubles(-0.1)))[0], rtol=1e-7, atol=0)


def test_jumps_at_the_ends_and_a_subclass_of_kl() -> None:
    class Half(KL):
        jumps = (0.0, 0.5, 1.0)

        def __call__(self, t: Tensor, /) -> Tensor:
            return torch.where(t < 0.5, super().__call__(t), 0.0)

    x, solver = start(), ExponentialEuler(network(), PATH, Half(PATH))
    assert solver.transition(x, *torch.tensor([0.6, 0.8])).std == 0
    assert solver.transition(x, *torch.tensor([0.0, 0.3])).std > 0
    assert solver.transition(x, *torch.tensor([0.0, 1.0])).std == 0
    expected = ExponentialEuler(network(), PATH, Window(KL(PATH), (0.0, 0.5))).transition(x, *torch.tensor([0.2, 0.8]))
    torch.testing.assert_close(solver.transition(x, *torch.tensor([0.2, 0.8])).std, expected.std)


def test_half_precision_times_of_a_step_are_used_as_given() -> None:
    x = start()
    for name in NOISY:
        t, s = torch.tensor([0.25, 0.375])
        expected = stepping(name).transition(x, t, s)
        for one, other in zip(stepping(name).transition(x, t.bfloat16(), s.bfloat16()), expected, strict=True):
            torch.testing.assert_close(one, other)


def test_densities_in_double_precision_are_exact_in_many_dimensions() -> None:
    y = torch.randn(1, 200_000, generator=torch.Generator().manual_seed(0))
    mean = torch.zeros_like(y)
    exact = (-2 * y.double() ** 2 - math.log(0.5) - math.log(2 * math.pi) / 2).sum(1)
    torch.testing.assert_close(Transition(mean, torch.tensor(0.5)).log_prob(y.double()), exact, rtol=1e-12, atol=0)
    torch.testing.assert_close(Transition(mean, torch.tensor(0.5)).log_prob(y).double(), exact, rtol=1e-6, atol=0)


def test_objects_of_another_kind_are_refused() -> None:
    transition = stepping("EulerMaruyama").transition(start(), TIMES[0], TIMES[1])
    with pytest.raises(ValueError, match="states must be a tensor, got list"):
        transition.log_prob([1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"states must have shape \(B, \*\)"):
        stepping("EulerMaruyama").step(torch.tensor(1.0), TIMES[0], TIMES[1])
    with pytest.raises(ValueError, match="the class ExponentialEuler has no transition density"):
        log_probs(ExponentialEuler, [start(), start()], TIMES[:2])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a window needs a w\(t\) inside"):
        Window(None, (0.0, 1.0))  # type: ignore[arg-type]
    for interval in (0.5, (0.1, 0.2, 0.3)):
        with pytest.raises(ValueError, match=r"interval must be \(low, high\), got"):
            Window(Sigma(PATH), interval)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Tamed(TransitionStep):
    """A user-written step: Euler-Maruyama with a drift of bounded length."""

    order: ClassVar[int] = 1
    sde: SDE
    noise: NoiseSource = white

    def transition(self, x: Tensor, t: Tensor, s: Tensor, /) -> Transition:
        drift, w = self.sde(x, t)
        tamed = drift / (1 + column(s - t, x) * drift.abs())
        return Transition(x + column(s - t, x) * tamed, column((w * (s - t)).sqrt(), x))


def test_a_user_written_step_has_densities() -> None:
    solver, x = Tamed(SDE(network().double(), PATH, Sigma(PATH)), NOISE), start(torch.float64)
    states = trajectory(solver, x, TIMES.double())
    found = log_probs(solver, states, TIMES.double())
    for n, row in enumerate(found):
        mean, std = solver.transition(states[n], TIMES[n].double(), TIMES[n + 1].double())
        torch.testing.assert_close(row, Independent(Normal(mean, std.expand_as(mean)), 1).log_prob(states[n + 1]))  # type: ignore[no-untyped-call]
    euler = EulerMaruyama(SDE(network().double(), PATH, Sigma(PATH)), NOISE)
    fine = torch.linspace(0.05, 0.95, 501, dtype=torch.float64)
    torch.testing.assert_close(sample(solver, x, fine), sample(euler, x, fine), rtol=0, atol=0.05)


@pytest.mark.parametrize("std", [torch.ones(2), torch.ones(2, 1, 1), 0.5], ids=["rows", "dimensions", "float"])
def test_a_std_that_would_scale_columns_is_refused(std: Tensor) -> None:
    class Wrong(Tamed):
        def transition(self, x: Tensor, t: Tensor, s: Tensor, /) -> Transition:
            return Transition(x, std)

    solver, x, times = Wrong(SDE(network(), PATH, Sigma(PATH))), torch.randn(2, 2), TIMES[:2]
    with pytest.raises(ValueError, match=r"std must be a tensor of .*, got .*: use samplers\.column"):
        sample(solver, x, times)
    with pytest.raises(ValueError, match=r"std must be a tensor of .*, got .*: use samplers\.column"):
        log_probs(solver, [x, x], times)


def test_a_window_in_numbers_of_steps_and_an_infinite_w_are_explained() -> None:
    with pytest.raises(ValueError, match=r"in times, from 0 to 1, not in numbers of steps, got \(3, 6\)"):
        Window(Sigma(PATH), (3, 6))
    with pytest.raises(ValueError, match="got inf at t = 0: use times at which it is finite, or ExponentialEuler"):
        EulerMaruyama(SDE(network(), PATH, KL(PATH))).step(start(), torch.tensor(0.0), torch.tensor(0.1))
    with pytest.raises(ValueError, match=r"times must increase, got \[1, 0\.99, 0\.98, \.\.\., 0\.01, 0\]"):
        sample(stepping("EulerMaruyama"), start(), torch.linspace(1, 0, 101))
