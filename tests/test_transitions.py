"""Transition densities of SDE solvers, trajectories, and windows of noise."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from sitkit.samplers import (
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
    Keyed,
    NoiseSource,
    Sigma,
    StochasticHeun,
    Transition,
    TransitionStep,
    Window,
    column,
    log_probs,
    sample,
    trajectory,
    white,
)
from solvers import NOISE, PATH, SOLVERS, STOCHASTIC, TIMES, WORLD, network, start
from worlds import Gaussian, doubles, slope

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


@pytest.mark.parametrize("w", [Sigma(PATH), KL(PATH), Window(Sigma(PATH), (0.2, 0.6))], ids=str)
def test_steps_of_no_rows(w: Diffusion) -> None:
    for solver in (ExponentialEuler(network(), PATH, w), EulerMaruyama(SDE(network(), PATH, Sigma(PATH)))):
        none = solver.transition(torch.zeros(0, 2), torch.zeros(0), torch.full((0,), 0.5))
        assert none.log_prob(torch.zeros(0, 2)).shape == (0,)


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
