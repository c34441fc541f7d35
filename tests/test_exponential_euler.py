"""`ExponentialEuler`: its equivalents, its integral of w, and both ends."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from sitkit.interpolants import GVP, VP, Interpolant, Linear
from sitkit.samplers import (
    DDIM,
    KL,
    Ancestral,
    Constant,
    Exponential,
    ExponentialEuler,
    Sigma,
    SineSquared,
    Window,
    sample,
    trajectory,
)
from solvers import NOISE, PATH, TIMES, WORLD, network, start
from worlds import PATHS, doubles


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
