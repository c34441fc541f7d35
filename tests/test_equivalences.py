"""The SDE steps of reinforcement learning on flow models are steps of `EulerMaruyama` and `ExponentialEuler`.

Each function below is the step of one paper in the notation of that paper: time is the noise level sigma, which falls
from 1 (noise) to 0 (data), x = (1 - sigma) data + sigma noise, and the network predicts noise - data. It returns the
mean and the standard deviation of the next state. `docs/transitions.md` has the table.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sitkit.interpolants import Linear
from sitkit.samplers import KL, SDE, Constant, EulerMaruyama, ExponentialEuler, Field, TransitionStep, Window
from solvers import network
from worlds import doubles, on_images, random_mixture

PATH = Linear()
GRID = doubles(0, 0.03, 0.1, 0.35, 0.6, 0.9, 0.99)
"""Times from noise at 0 to data, of our convention."""

FIELDS: dict[str, tuple[Field, Tensor]] = {
    "network": (network().double(), torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).double()),
    "mixture": (
        on_images(random_mixture(3, 12, seed=1).velocity(PATH)),
        torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(2)).double(),
    ),
}

Step = tuple[Tensor, Tensor]
Method = Callable[[Tensor, Tensor, Tensor, Tensor, float], Step]


def flow_grpo(v: Tensor, x: Tensor, sigma: Tensor, following: Tensor, a: float) -> Step:
    """Flow-GRPO (arXiv 2505.05470): an Euler-Maruyama step with sigma_t = a sqrt(t / (1 - t)); dt is negative."""
    dt = following - sigma
    diffusion = a * torch.sqrt(sigma / (1 - sigma))
    drift = v + diffusion**2 / (2 * sigma) * (x + (1 - sigma) * v)
    return x + drift * dt, diffusion * torch.sqrt(-dt)


def flow_grpo_at_noise(v: Tensor, x: Tensor, sigma: Tensor, following: Tensor, a: float) -> Step:
    """The first step of Flow-GRPO's code, from sigma = 1: the next sigma replaces sigma in 1 - sigma."""
    dt = following - sigma
    diffusion = a * torch.sqrt(sigma / (1 - following))
    return x + (v + diffusion**2 / (2 * sigma) * (x + (1 - sigma) * v)) * dt, diffusion * torch.sqrt(-dt)


def dance_grpo(v: Tensor, x: Tensor, sigma: Tensor, following: Tensor, eta: float) -> Step:
    """DanceGRPO (arXiv 2505.07818): dz = (u - eta^2 / 2 score) dt + eta dw, with the score from the predicted data."""
    dt = following - sigma
    data = x - sigma * v
    score = -(x - (1 - sigma) * data) / sigma**2
    return x + (v - eta**2 / 2 * score) * dt, eta * torch.sqrt(-dt)


def cps(v: Tensor, x: Tensor, sigma: Tensor, following: Tensor, eta: float) -> Step:
    """Coefficients-Preserving Sampling (arXiv 2509.05952): the squared coefficients of the noises sum to sigma^2."""
    data, noise = x - sigma * v, x + (1 - sigma) * v
    std = following * math.sin(eta * math.pi / 2)
    return (1 - following) * data + torch.sqrt(following**2 - std**2) * noise, std


def precise(v: Tensor, x: Tensor, sigma: Tensor, following: Tensor, eta: float) -> Step:
    """Precise (arXiv 2605.23522): rho = exp(-eta^2 / 2 (difference of log-SNR / 2)), for a fixed predicted data."""
    ratio = following * (1 - sigma) / (sigma * (1 - following))
    return _for_fixed_data(v, x, sigma, following, ratio ** (eta**2 / 2))


def dance_precise(v: Tensor, x: Tensor, sigma: Tensor, following: Tensor, eta: float) -> Step:
    """The step of Precise for DanceGRPO's constant diffusion."""
    return _for_fixed_data(v, x, sigma, following, torch.exp(-(eta**2) / 2 * (1 / following - 1 / sigma)))


def _for_fixed_data(v: Tensor, x: Tensor, sigma: Tensor, following: Tensor, rho: Tensor) -> Step:
    data, noise = x - sigma * v, x + (1 - sigma) * v
    return (1 - following) * data + following * rho * noise, following * torch.sqrt(1 - rho**2)


def mean_log_prob(step: Step, y: Tensor) -> Tensor:
    """Return their log-probability, (B,): the normal log-density, averaged over the dimensions."""
    mean, std = step
    values = -((y - mean) ** 2) / (2 * std**2) - torch.log(std) - math.log(math.sqrt(2 * math.pi))
    return values.flatten(1).mean(1)


def squared_error(step: Step, y: Tensor) -> Tensor:
    """Return the log-probability of CPS, (B,), which drops the standard deviation and the constant."""
    return -((y - step[0]) ** 2).flatten(1).mean(1)


@dataclass(frozen=True)
class CPS:
    """The w(t) for which steps of `ExponentialEuler` on a grid of times are those of CPS: c sigma(t), c per step."""

    times: Tensor
    eta: float

    def __call__(self, t: Tensor) -> Tensor:
        sigma = PATH.sigma(self.times.double())
        c = -2 * math.log(math.cos(self.eta * math.pi / 2)) / (sigma[:-1] / sigma[1:]).log()
        step = torch.searchsorted(self.times.double(), t.double(), right=True) - 1
        return c[step.clamp(0, len(c) - 1)] * PATH.sigma(t)


def euler(velocity: Field, w: Callable[[Tensor], Tensor]) -> TransitionStep:
    return EulerMaruyama(SDE(velocity, PATH, w))


def exponential(velocity: Field, w: Callable[[Tensor], Tensor]) -> TransitionStep:
    return ExponentialEuler(velocity, PATH, w)


EQUIVALENT: dict[str, tuple[Method, float, Callable[[Field, float], TransitionStep]]] = {
    "Flow-GRPO": (flow_grpo, 0.7, lambda v, a: euler(v, KL(PATH, a**2 / 2))),
    "DanceGRPO": (dance_grpo, 0.3, lambda v, eta: euler(v, Constant(eta**2))),
    "CPS": (cps, 0.8, lambda v, eta: exponential(v, CPS(GRID, eta))),
    "Precise": (precise, 1.3, lambda v, eta: exponential(v, KL(PATH, eta**2 / 2))),
    "Dance-Precise": (dance_precise, 0.6, lambda v, eta: exponential(v, Constant(eta**2))),
}
FINITE_AT_NOISE = {"DanceGRPO", "CPS", "Precise", "Dance-Precise"}


def theirs(velocity: Field, x: Tensor, t: Tensor) -> Tensor:
    """Return the network output of their convention, for the velocity of ours."""
    return -velocity(x, t.expand(len(x)))


def assert_near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected.expand_as(found), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("name", EQUIVALENT)
def test_a_step_of_a_paper_is_a_step_of_a_solver(name: str, field: str) -> None:
    (step, level, make), (velocity, x) = EQUIVALENT[name], FIELDS[field]
    solver = make(velocity, level)
    dimensions = x[0].numel()
    for t, s in pairwise(GRID if name in FINITE_AT_NOISE else GRID[1:]):
        expected = step(theirs(velocity, x, t), x, 1 - t, 1 - s, level)
        found = solver.transition(x, t, s)
        assert_near(found.mean, expected[0])
        assert_near(found.std, expected[1])
        y = solver.step(x, t, s).detach()
        torch.testing.assert_close(found.log_prob(y), dimensions * mean_log_prob(expected, y), rtol=1e-10, atol=1e-10)
        if name == "CPS":
            std, constant = found.std, found.std.log() + math.log(2 * math.pi) / 2
            ours = 2 * std**2 * (found.log_prob(y) / dimensions + constant)
            torch.testing.assert_close(squared_error(expected, y), ours, rtol=1e-10, atol=1e-10)


def test_mixgrpo_is_flow_grpo_in_a_window_of_steps() -> None:
    """MixGRPO (arXiv 2507.21802): steps 2 and 3 by the SDE, the others by the ODE."""
    (velocity, x), a = FIELDS["network"], 0.7
    w = KL(PATH, a**2 / 2)
    euler_window = euler(velocity, Window(w, (float(GRID[2]), float(GRID[3]))))
    exponential_window = exponential(velocity, Window(w, (float(GRID[2]), float(GRID[4]))))
    for n, (t, s) in enumerate(pairwise(GRID)):
        mean, std = euler_window.transition(x, t, s)
        v = theirs(velocity, x, t)
        if n in (2, 3):
            expected = flow_grpo(v, x, 1 - t, 1 - s, a)
            other = precise(v, x, 1 - t, 1 - s, a)
        else:
            expected = x + v * (t - s), torch.zeros(()).double()
            other = (s * (x - (1 - t) * v) + (1 - s) * (x + t * v)), expected[1]
        assert_near(mean, expected[0])
        assert_near(std, expected[1])
        for found, value in zip(exponential_window.transition(x, t, s), other, strict=True):
            assert_near(found, value)


def test_the_first_step_of_flow_grpo_needs_a_patch_and_adds_noise() -> None:
    """At sigma = 1 its diffusion is infinite. The exponential step of the same SDE is finite and has the right noise.

    The state at sigma = 1 is standard normal and independent of the predicted data, so the noise of the next state
    has variance (coefficient of the state)^2 + std^2, which should be the next sigma^2.
    """
    (velocity, x), a, (t, s) = FIELDS["mixture"], 0.7, GRID[:2]
    w = KL(PATH, a**2 / 2)
    with pytest.raises(ValueError, match="t = 0"):
        euler(velocity, w).transition(x, t, s)
    patched = euler(velocity, lambda u: torch.where(u == 0, a**2 / s, w(torch.where(u == 0, s, u))))
    expected = flow_grpo_at_noise(theirs(velocity, x, t), x, 1 - t, 1 - s, a)
    found = patched.transition(x, t, s)
    assert_near(found.mean, expected[0])
    assert_near(found.std, expected[1])

    def noise_variance(solver: TransitionStep) -> Tensor:
        mean, std = solver.transition(x, t, s)
        data = PATH.data_from_velocity(velocity(x, t.expand(len(x))), x, t)
        by_state = ((mean - s * data) * x).sum() / (x * x).sum()  # alpha(s) = s is the coefficient of the data
        variance: Tensor = by_state**2 + std**2
        return variance

    assert_near(noise_variance(exponential(velocity, w)), (1 - s) ** 2)
    assert_near(noise_variance(patched), (1 - s) ** 2 + a**2 * s + a**4 / 4)


def test_a_last_step_to_the_data_adds_noise_by_euler_maruyama_only() -> None:
    (velocity, x), (t, s) = FIELDS["mixture"], doubles(0.9, 1)
    data = PATH.data_from_velocity(velocity(x, t.expand(len(x))), x, t)
    for name, (step, level, make) in EQUIVALENT.items():
        solver = make(velocity, level) if name != "CPS" else exponential(velocity, CPS(doubles(0.9, 1), level))
        mean, std = solver.transition(x, t, s)
        assert (std > 0) == (name in {"Flow-GRPO", "DanceGRPO"})
        if std == 0:
            assert_near(mean, data)
        expected = step(theirs(velocity, x, t), x, 1 - t, 1 - s, level)
        assert_near(mean, expected[0])
        assert_near(std, expected[1])
