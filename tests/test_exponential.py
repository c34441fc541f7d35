"""Laws of exponential multistep methods."""

import itertools
from collections.abc import Callable

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from sitkit.interpolants import GVP, VP, Interpolant, Linear
from sitkit.samplers import (
    DDIM,
    KL,
    Ancestral,
    Brownian,
    Constant,
    Counted,
    Diffusion,
    Exponential,
    Keyed,
    RaisedCosine,
    Sigma,
    SineSquared,
    measured_order,
    sample,
)
from sitkit.samplers.exponential_coefficients import ExponentialCoefficients
from sitkit.samplers.grids import power
from sitkit.samplers.log_snr import correlation, log_snr, time_from_log_snr
from worlds import PATHS, RING, Gaussian, Quadratic, doubles, slope

WORLD = Gaussian(mean=0.0, std=0.4)
MakeW = Callable[[Interpolant], Diffusion]
EVERY_W: dict[str, MakeW] = {
    "sigma": lambda path: Sigma(path, 2.0),
    "kl": KL,
    "constant": lambda path: Constant(0.7),
    "sine": lambda path: SineSquared(2.0),
    "raised": lambda path: RaisedCosine(1.0),
    "own": lambda path: lambda t: 4 * t * (1 - t),
}


def itself(values: Tensor) -> Tensor:
    """Take the logarithm itself for the variable, as DPM-Solver does."""
    return values


def first_time(path: Interpolant) -> float:
    return 0.05 if isinstance(path, Quadratic) else 0.0


def noise(count: int, size: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Coefficients:
    """A source of noise for states that are rows of coefficients: of the start and of each step's noise.

    A linear field acts on them as on states, so that a chain's variance is the sum of their squares.
    """

    def __init__(self) -> None:
        self.used = 0

    def __call__(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        self.used += 1
        return torch.nn.functional.one_hot(torch.tensor(self.used), x.shape[1]).to(x).expand_as(x)


def final_variance(
    world: Gaussian, path: Interpolant, w: Diffusion, times: Tensor, order: int, corrector: bool
) -> float:
    """Return the exact variance at the last time, from the exact one at the first."""
    x = torch.zeros(1, len(times), dtype=torch.float64)
    x[0, 0] = world.moments(path, times[0])[1]
    solver = Exponential(world.velocity(path), path, w, order, corrector, noise=Coefficients())
    return float(sample(solver, x, times).square().sum())


@pytest.mark.parametrize("variable", [correlation, itself])
@pytest.mark.parametrize(("order", "corrector"), [*itertools.product((1, 2, 3), (False, True))])
def test_order_of_the_ode(order: int, corrector: bool, variable: Callable[[Tensor], Tensor]) -> None:
    measured = measured_order(lambda v: Exponential(v, Linear(), order=order, corrector=corrector, variable=variable))
    assert measured > order + corrector - 0.2
    assert corrector or measured < order + 0.2


@pytest.mark.parametrize("path", [Linear(), GVP(), VP(), Quadratic()], ids=repr)
@pytest.mark.parametrize("w", ["sigma", "kl", "constant", "own"])
@pytest.mark.parametrize("grids", [(16, 32), pytest.param((16, 32, 64), marks=pytest.mark.slow)])
def test_weak_order_for_every_path_and_w(path: Interpolant, w: str, grids: tuple[int, ...]) -> None:
    errors: dict[int, list[float]] = {1: [], 2: [], 3: []}
    for order, steps in itertools.product(errors, grids):
        times = torch.linspace(0.15, 0.85, steps + 1, dtype=torch.float64)
        exact = float(WORLD.moments(path, times[-1])[1]) ** 2
        variance = final_variance(WORLD, path, EVERY_W[w](path), times, order, corrector=order == 3)
        errors[order].append(abs(variance - exact))
    assert slope(grids, errors[1]) > 0.8
    assert slope(grids, errors[2]) > 1.7
    assert errors[3][-1] < errors[2][-1] / 2


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("w", EVERY_W)
def test_every_w_keeps_the_data_from_end_to_end(path: Interpolant, w: str) -> None:
    times = power(path, 80, interval=(first_time(path), 1.0))
    order = 2 if w == "constant" else 3  # it loses the state near the data
    variance = final_variance(WORLD, path, EVERY_W[w](path), times, order, True)
    assert variance**0.5 == pytest.approx(WORLD.std, rel=4e-2)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_first_order_is_ddim_and_the_ancestral_chain(path: Interpolant) -> None:
    x, velocity = noise(20), RING.velocity(path)
    times = torch.linspace(first_time(path), 1, 9, dtype=torch.float64)
    keyed = Keyed(0, torch.arange(20))
    torch.testing.assert_close(
        sample(Exponential(velocity, path, order=1, corrector=False), x, times), sample(DDIM(velocity, path), x, times)
    )
    torch.testing.assert_close(
        sample(Exponential(velocity, path, KL(path), 1, False, noise=keyed), x, times),
        sample(Ancestral(velocity, path, noise=keyed), x, times),
    )


def by_diffusers(scheduler: object, data: Callable[[Tensor, Tensor], Tensor], x: Tensor, times: Tensor) -> Tensor:
    """Return the states that a scheduler comes to along times of GVP, whose alpha^2 + sigma^2 is 1, as it assumes."""
    path = GVP()
    scheduler.set_timesteps(len(times) - 1)  # type: ignore[attr-defined]
    scheduler.sigmas = path.sigma(times) / path.alpha(times)  # type: ignore[attr-defined]
    scheduler.timesteps = torch.arange(len(times) - 1)  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    for k, t in enumerate(times[:-1]):
        step = scheduler.step(data(x, t.expand(len(x))), k, x, generator=generator)  # type: ignore[attr-defined]
        x = step.prev_sample
    return x


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize("stochastic", [False, True])
def test_in_lambda_second_order_is_dpm_solver_plus_plus(stochastic: bool) -> None:
    path, x = GVP(), noise(20)
    times = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    scheduler = DPMSolverMultistepScheduler(  # type: ignore[no-untyped-call]
        algorithm_type="sde-dpmsolver++" if stochastic else "dpmsolver++",
        solver_type="heun",  # the exact integral; "midpoint" approximates it
        solver_order=2,
        prediction_type="sample",
        lower_order_final=False,
        final_sigmas_type="sigma_min",
    )
    theirs = by_diffusers(scheduler, RING.data(path), x, times)
    generator = torch.Generator().manual_seed(0)

    def drawn(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator).to(x)  # diffusers samples noise and computes in float32

    w = KL(path) if stochastic else None
    ours = sample(Exponential(RING.velocity(path), path, w, 2, False, itself, drawn), x, times)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_strong_convergence_on_one_path_of_the_noise() -> None:
    path, x = Linear(), noise(50)

    def clock(t: Tensor) -> Tensor:
        return (1 - t) ** -2  # the exponential of the integral of w / sigma^2, for w = 2 sigma

    interval = float(clock(doubles(0.1)[0])), float(clock(doubles(0.6)[0]))
    brownian = Brownian(0, torch.arange(50), interval, levels=8)
    ends = []
    for steps in (8, 16, 32, 256):
        times = 1 - torch.linspace(*interval, steps + 1, dtype=torch.float64) ** -0.5
        solver = Exponential(
            RING.velocity(path), path, Sigma(path, 2.0), noise=lambda x, t, s: brownian(x, clock(t), clock(s))
        )
        ends.append(sample(solver, x, times))
    errors = [float((end - ends[-1]).square().mean().sqrt()) for end in ends[:-1]]
    assert slope((8, 16, 32), errors) > 0.85


@pytest.mark.parametrize("start", [0.0, 0.2])
def test_linear_part_and_variance_are_exact(start: float) -> None:
    path = Linear()
    times = torch.linspace(start, 1 - 1e-4, 12, dtype=torch.float64)
    t, s = times[:-1], times[1:]
    for w, integral in (
        (Sigma(path, 2.0), 2 * torch.log((1 - t) / (1 - s))),
        (Constant(0.7), 0.7 * (1 / (1 - s) - 1 / (1 - t))),
        (KL(path), 2 * torch.log(s * (1 - t) / (t * (1 - s)))),
    ):
        steps = ExponentialCoefficients(path, w, times, correlation)
        torch.testing.assert_close(
            torch.tensor(steps.state, dtype=torch.float64),
            (1 - s) / (1 - t) * torch.exp(-integral / 2),
            rtol=1e-9,
            atol=1e-15,
        )
        torch.testing.assert_close(
            torch.tensor(steps.noise, dtype=torch.float64),
            (1 - s) * torch.sqrt(-torch.expm1(-integral)),
            rtol=1e-9,
            atol=0,
        )


@pytest.mark.parametrize("w", [None, Sigma(Linear(), 2.0), Constant(0.7)])
def test_weights_integrate_polynomials_in_the_variable(w: Diffusion | None) -> None:
    path, times = Linear(), doubles(0.2, 0.4, 0.7, 0.85, 1.0)
    steps = ExponentialCoefficients(path, w, times, correlation)
    places = correlation(log_snr(path, times))
    fine = torch.linspace(0.7, 0.85, 200_001, dtype=torch.float64)
    share = 0 * fine if w is None else w(fine) / (1 - fine) ** 2
    before = torch.cat([doubles(0.0), torch.cumulative_trapezoid(share, fine)])
    after = before[-1] - before
    mass = fine * 0.15 / (1 - fine) * torch.exp(-after / 2)  # alpha Phi
    u = correlation(log_snr(path, fine))
    for nodes in ([2], [2, 1], [2, 1, 0], [3, 2, 1, 0]):
        for k in range(len(nodes)):
            exact = torch.trapezoid(u**k, mass)
            given = sum(c * places[n] ** k for c, n in zip(steps.weights(2, nodes), nodes, strict=True))
            torch.testing.assert_close(torch.as_tensor(given), exact, rtol=1e-6, atol=1e-9)
            last = sum(
                c * places[n] ** k for c, n in zip(steps.weights(3, [3, 2, 1][: len(nodes)]), [3, 2, 1], strict=False)
            )
            if k < min(len(nodes), 3):  # at sigma = 0 all of the mass lies at the end, where the variable is 0
                assert float(last) == pytest.approx(float(k == 0), abs=1e-12)


def test_one_call_a_step_and_a_state_at_each_time() -> None:
    counted, times = Counted(RING.velocity(Linear())), torch.linspace(0, 1, 8)
    x = noise(5).float()
    states = list(Exponential(counted, Linear(), Sigma(Linear()))(x, times))
    assert (len(states), counted.calls) == (8, 7)
    assert states[0] is x
    assert len(list(Exponential(counted, Linear())(x, times[:1]))) == 1


def test_standard_normal_data_cost_order_2_no_error_but_that_of_its_start() -> None:
    world, path, x = Gaussian(0.0, 1.0), Linear(), noise(9)
    times = torch.cat([doubles(0.1), torch.linspace(0.1 + 1e-6, 1, 5, dtype=torch.float64)])  # which is short here
    exact = world.flow(path, x, times[0], times[-1])
    for order, least, most in ((1, 1e-2, 1.0), (2, 0.0, 1e-5), (3, 0.0, 1e-3)):
        end = sample(Exponential(world.velocity(path), path, order=order, corrector=False), x, times)
        assert least <= float((end - exact).abs().max()) <= most


@pytest.mark.parametrize("path", [Linear(), GVP()], ids=repr)
def test_the_ode_runs_backwards(path: Interpolant) -> None:
    world, x = Gaussian(0.5, 0.4), noise(9)
    times = torch.linspace(0.95, 0.0, 65, dtype=torch.float64)
    there = sample(Exponential(world.velocity(path), path), x, times)
    torch.testing.assert_close(there, world.flow(path, x, times[0], times[-1]), rtol=1e-3, atol=1e-3)


def test_the_clock_is_inverted() -> None:
    for path in PATHS:
        t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
        torch.testing.assert_close(time_from_log_snr(path, log_snr(path, t)), t)
    assert time_from_log_snr(Linear(), doubles(-torch.inf, torch.inf)).tolist() == [0.0, 1.0]


def test_bad_arguments_are_refused() -> None:
    velocity, x = RING.velocity(Linear()), noise(3)
    with pytest.raises(ValueError, match="order must be 1, 2 or 3, got 4"):
        Exponential(velocity, Linear(), order=4)
    with pytest.raises(ValueError, match="times must increase"):
        sample(Exponential(velocity, Linear(), Sigma(Linear())), x, doubles(0.9, 0.5, 0.1))
    with pytest.raises(ValueError, match=r"at t = 1 the velocity does not determine data and noise"):
        sample(Exponential(velocity, Linear()), x, doubles(1.0, 0.5, 0.1))
    with pytest.raises(ValueError, match=r"at t = 0 the velocity does not determine"):
        sample(Exponential(RING.velocity(Quadratic()), Quadratic()), x, doubles(0.0, 0.5, 1.0))
    with pytest.raises(ValueError, match=r"w\(t\) must be finite and >= 0, got -1"):
        sample(Exponential(velocity, Linear(), lambda t: -torch.ones_like(t)), x, doubles(0.0, 0.5, 1.0))
