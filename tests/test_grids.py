"""Laws of time grids, and of `plan`."""

import itertools
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sitkit.interpolants import GVP, VP, Interpolant, Linear
from sitkit.samplers import (
    KL,
    RK4,
    SDE,
    Counted,
    EulerMaruyama,
    Exponential,
    Heun,
    Keyed,
    Mean,
    Plan,
    Sigma,
    grids,
    plan,
    sample,
)
from sitkit.samplers.log_snr import correlation, log_snr
from sitkit.samplers.roughness import NormalRoughness
from worlds import PATHS, RING, Gaussian, random_mixture

Grid = Callable[..., Tensor]
GRIDS: dict[str, Grid] = {
    "uniform": grids.uniform,
    "power": grids.power,
    "shifted": grids.shifted,
    "uniform_log_snr": grids.uniform_log_snr,
    "fitted": grids.fitted,
    "timesteps": grids.timesteps,
}


def noise(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(
    st.sampled_from(PATHS),
    st.sampled_from(list(GRIDS.values())),
    st.integers(1, 60),
    st.sampled_from([(0.0, 1.0), (0.01, 1.0), (0.0, 0.96), (0.2, 1 - 1e-5)]),
)
def test_grids_rise_from_end_to_end(path: Interpolant, grid: Grid, steps: int, interval: tuple[float, float]) -> None:
    times = grid(path, steps, interval=interval)
    assert (times.shape, times.dtype) == ((steps + 1,), torch.float64)
    assert (times[0].item(), times[-1].item()) == interval
    assert (times.diff() > 0).all()


@pytest.mark.parametrize("path", [GVP(), Linear()], ids=repr)
def test_closed_forms(path: Interpolant) -> None:
    q = torch.linspace(0, 1, 8, dtype=torch.float64)
    torch.testing.assert_close(grids.uniform(path, 7), q)
    torch.testing.assert_close(grids.shifted(path, 7, shift=2.0), q / (2 - q))
    torch.testing.assert_close(grids.shifted(path, 7, shift=1.0, interval=(0.2, 0.7)), 0.2 + 0.5 * q)
    clock = torch.sigmoid(log_snr(path, grids.power(path, 7, exponent=1.5)))
    torch.testing.assert_close(clock, 1 - (1 - q) ** 1.5)
    places = log_snr(path, grids.uniform_log_snr(path, 7, limit=2.0))
    torch.testing.assert_close(places[1:-1], torch.linspace(-2, 2, 6, dtype=torch.float64))
    inside = log_snr(path, grids.uniform_log_snr(path, 7, limit=9.0, interval=(0.1, 0.9)))
    torch.testing.assert_close(inside.diff(), inside.diff().mean().expand(7))


def test_power_and_fitted_visit_the_same_noise_on_every_path() -> None:
    for grid in (grids.power, grids.fitted):
        one, two = (log_snr(path, grid(path, 9))[1:-1] for path in (Linear(), GVP()))
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)


def test_normal_roughness_is_the_third_derivative_of_the_data_prediction() -> None:
    u = torch.linspace(0.1, 0.95, 20, dtype=torch.float64)
    h = 1e-3
    for std in (0.3, 0.7):

        def data(u: Tensor, c: float = std) -> Tensor:
            return c**2 * u / torch.sqrt(1 - (1 - c**2) * u**2)

        third = (data(u + 2 * h) - 2 * data(u + h) + 2 * data(u - h) - data(u - 2 * h)) / (2 * h**3)
        torch.testing.assert_close(NormalRoughness((std, std * (1 + 1e-9)))(u), third.abs(), rtol=1e-3, atol=1e-4)
    world, path, x = Gaussian(0.0, 0.3), Linear(), noise(3)  # and that is its data prediction along the ODE
    t = torch.tensor(0.6, dtype=torch.float64)
    state = world.flow(path, x, torch.zeros_like(t), t)
    predicted = path.data_from_velocity(world.velocity(path)(state, t.expand(3)), state, t)
    angle = correlation(log_snr(path, t)) + 1
    torch.testing.assert_close(predicted, 0.09 * angle / torch.sqrt(1 - 0.91 * angle**2) * x)


def test_fitted_steps_have_equal_errors() -> None:
    path, steps = Linear(), 12
    for roughness in (NormalRoughness(), lambda u: 1 + 0 * u):
        u = torch.sin(torch.atan(torch.exp(log_snr(path, grids.fitted(path, steps, roughness=roughness)))))
        shares = []
        for low, high in itertools.pairwise(u):
            inner = low + (high - low) * (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
            shares.append(((roughness(inner) / (1 - inner**2)) ** 0.25).mean() * (high - low))
        torch.testing.assert_close(torch.stack(shares), torch.stack(shares).mean().expand(steps), rtol=2e-2, atol=0)


def test_a_measured_grid_is_better_than_equal_steps() -> None:
    path = GVP()
    for world in (RING, random_mixture(6, 2, 1)):
        velocity, x = world.velocity(path), noise(200)
        exact = sample(RK4(velocity), x, torch.linspace(0, 1, 101, dtype=torch.float64))

        def error(times: Tensor, velocity=velocity, x=x, exact=exact) -> float:  # type: ignore[no-untyped-def]
            return float((sample(Exponential(velocity, path), x, times) - exact).square().mean().sqrt())

        counted = Counted(velocity)
        times = grids.measured(path, 6, velocity=counted, x=noise(32, seed=1))
        assert error(times) < 0.7 * error(grids.uniform(path, 6))
        assert counted.calls == 4 * 6
    assert grids.measured(path, 1, velocity=velocity, x=x).tolist() == [0.0, 1.0]


def test_grids_refuse_bad_arguments() -> None:
    for grid in GRIDS.values():
        for steps, interval in ((0, (0.0, 1.0)), (3, (0.5, 0.5)), (3, (0.9, 0.1)), (3, (-0.1, 1.0)), (3, (0.0, 1.1))):
            with pytest.raises(ValueError, match="steps >= 1 and an interval"):
                grid(Linear(), steps, interval=interval)
    named: list[tuple[Grid, str]] = [
        (grids.power, "exponent"),
        (grids.shifted, "shift"),
        (grids.uniform_log_snr, "limit"),
    ]
    for grid, name in named:
        for value in (0.0, -1.0, math.inf):
            with pytest.raises(ValueError, match=f"{name} must be positive"):
                grid(Linear(), 3, **{name: value})
    with pytest.raises(ValueError, match="must overlap"):
        grids.uniform_log_snr(Linear(), 5, limit=1.0, interval=(0.9, 0.99))
    with pytest.raises(ValueError, match="roughness must be finite"):
        grids.fitted(Linear(), 5, roughness=torch.zeros_like)
    with pytest.raises(ValueError, match="scales must be"):
        NormalRoughness((1.0, 0.5))


@pytest.mark.parametrize("path", [Linear(), GVP(), VP()], ids=repr)
@pytest.mark.parametrize("w", [None, KL])
def test_a_plan_uses_the_given_nfe(path: Interpolant, w: Callable[[Interpolant], KL] | None) -> None:
    for evaluations in (1, 2, 3, 10):
        counted = Counted(RING.velocity(path))
        made = plan(
            counted, path, w=None if w is None else w(path), evaluations=evaluations, noise=Keyed(0, torch.arange(5))
        )
        assert sample(made.solver, noise(5), made.times).isfinite().all()
        assert counted.calls == evaluations
        assert "Exponential" in repr(made)
    solver, times = made
    later = made._replace(times=times[1:])
    assert isinstance(later, Plan)
    assert later.solver is solver
    assert torch.equal(later.times, times[1:])
    with pytest.raises(ValueError, match="evaluations must be a whole number, at least 1, got 0"):
        plan(counted, path, evaluations=0)


@pytest.mark.parametrize("path", [Linear(), GVP()], ids=repr)
def test_a_plan_at_10_nfe_is_more_accurate_than_heun_at_14(path: Interpolant) -> None:
    ours, heuns = [], []
    for seed in range(4):
        velocity, x = random_mixture(5, 2, 100 + seed).velocity(path), noise(200)
        exact = sample(RK4(velocity), x, torch.linspace(0, 1, 101, dtype=torch.float64))
        made = plan(velocity, path, evaluations=10)
        ours.append(sample(made.solver, x, made.times) - exact)
        heuns.append(sample(Heun(velocity), x, torch.linspace(0, 1, 8, dtype=torch.float64)) - exact)
    assert torch.stack(ours).square().mean() < torch.stack(heuns).square().mean()


@pytest.mark.parametrize("path", [Linear(), GVP()], ids=repr)
@pytest.mark.parametrize("w", [partial(Sigma, scale=2.0), KL])
def test_a_plan_of_an_sde_is_more_accurate_than_euler_maruyama(
    path: Interpolant, w: Callable[[Interpolant], Sigma | KL]
) -> None:
    """By the variance of normal data of several scales, which is exact linear algebra without randomness."""
    ours, theirs = [], []
    for std in (0.1, 0.3, 1.0):
        velocity = Gaussian(0.0, std).velocity(path)
        made = plan(velocity, path, w=w(path), evaluations=10, noise=Unit())
        start = torch.zeros(1, 40, dtype=torch.float64)
        start[0, 0] = 1
        ours.append(float(sample(made.solver, start, made.times).norm()) - std)
        sde = SDE(velocity, path, w(path))
        best = math.inf
        for last in (0.02, 0.04):
            times = torch.cat([torch.linspace(1e-2, 1 - last, 10, dtype=torch.float64), torch.ones(1).double()])
            end = sample(EulerMaruyama(sde, Unit()), start, times, Mean(sde)).norm()
            best = min(best, abs(float(end) - std))
        theirs.append(best)
    assert sum(abs(error) for error in ours) < sum(theirs)


class Unit:
    """Noise along a new coordinate at each step, for states that are coefficients of the noise."""

    def __init__(self) -> None:
        self.used = 0

    def __call__(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        self.used += 1
        unit = torch.zeros_like(x)
        unit[:, self.used] = 1
        return unit
