"""`Window`: the SDE inside, the ODE outside, at times of a grid and between them."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sitkit.interpolants import Interpolant
from sitkit.samplers import (
    KL,
    SDE,
    Constant,
    Euler,
    EulerMaruyama,
    Exponential,
    ExponentialEuler,
    Heun,
    Sigma,
    SineSquared,
    StochasticHeun,
    Window,
    plan,
    sample,
)
from sitkit.samplers.sde import safe_sqrt
from solvers import PATH, WORLD, network, start
from worlds import PATHS, Gaussian, doubles


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
