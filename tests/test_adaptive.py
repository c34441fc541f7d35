"""The solvers of torchdiffeq and torchsde."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from marks import slow_unless
from sitkit.interpolants import GVP, Interpolant, Linear
from sitkit.samplers import (
    KL,
    SDE,
    Counted,
    EulerMaruyama,
    Keyed,
    Sigma,
    SineSquared,
    StochasticHeun,
    adaptive,
    sample,
    sdeint,
)
from worlds import PATHS, RING, Gaussian, Quadratic, doubles

WORLD = Gaussian(mean=1.5, std=0.5)
ADAPTING = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun", "scipy_solver")
FIXED = ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams", "fixed_adams")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        slow_unless(method == "dopri5" or isinstance(path, Quadratic), method, path)
        for method, path in itertools.product(ADAPTING, PATHS)
    ],
    ids=repr,
)
def test_both_ways_to_the_tolerance(method: str, path: Interpolant) -> None:
    x = doubles(-1.0, 0.0, 2.0)[:, None]
    t, s = doubles(0.05, 0.95)
    velocity = WORLD.velocity(path)
    there = adaptive(velocity, x, 0.05, 0.95, method=method)
    torch.testing.assert_close(there, WORLD.flow(path, x, t, s), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(adaptive(velocity, there, 0.95, 0.05, method=method), x, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("method", FIXED)
def test_methods_with_steps_of_one_length(method: str) -> None:
    x, velocity = doubles(-1.0, 0.0, 2.0)[:, None], WORLD.velocity(GVP())
    errors = [
        (adaptive(velocity, x, 0.1, 0.9, method=method, steps=n) - WORLD.flow(GVP(), x, *doubles(0.1, 0.9))).abs().max()
        for n in (20, 80)
    ]
    assert errors[1] < 0.4 * errors[0]
    assert errors[1] < 0.02


@pytest.mark.parametrize("method", [*ADAPTING, *FIXED])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (0.3, 0.8), pytest.param((0.8, 0.3), marks=pytest.mark.slow)])
def test_the_field_is_never_asked_beyond_the_interval(method: str, ends: tuple[float, float]) -> None:
    asked: list[float] = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == x.shape[:1]
        asked.extend(t.tolist())
        return RING.velocity(Linear())(x, t)

    adaptive(velocity, torch.randn(4, 2, dtype=torch.float64), *ends, method=method)
    assert min(asked) >= min(ends)
    assert max(asked) <= max(ends)
    slow = Counted(lambda x, t: velocity(x, t) * 1e-9)  # whose first step is estimated to be very long
    adaptive(slow, torch.randn(4, 2, dtype=torch.float64), *ends, method=method)
    assert min(asked) >= min(ends)
    assert max(asked) <= max(ends)


@pytest.mark.parametrize("path", [Linear(), GVP()], ids=repr)
def test_inversion_of_images(path: Interpolant) -> None:
    x = RING.draw(6, torch.Generator().manual_seed(0)).float().reshape(6, 1, 1, 2)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return RING.velocity(path)(x.flatten(1), t).reshape(x.shape)

    latent = adaptive(velocity, x, 1.0, 0.0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(adaptive(velocity, latent, 0.0, 1.0, rtol=1e-6, atol=1e-6), x, rtol=0, atol=1e-4)


def test_steps_are_as_short_as_the_most_demanding_row_asks() -> None:
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return x * torch.where(x.abs() > 5, 20 * torch.cos(30 * t[:, None]), 0.0)

    counted = Counted(velocity)
    wild, calm = torch.full((1, 2), 10.0), torch.full((99, 2), 1.0)
    adaptive(counted, wild, 0.0, 1.0)
    alone = counted.calls
    counted.calls = 0
    adaptive(counted, torch.cat([wild, calm]), 0.0, 1.0)
    assert counted.calls >= alone


def test_states_of_half_precision_are_carried_in_single_and_steps_do_not_depend_on_the_size() -> None:
    field = Counted(lambda x, t: x * torch.cos(9 * t).reshape(-1, 1))
    assert adaptive(field, torch.ones(3, 2, dtype=torch.bfloat16), 0.0, 1.0).dtype == torch.bfloat16
    calls = []
    for size in (1, 64):
        field.calls = 0
        adaptive(field, torch.ones(3, size, dtype=torch.float64), 0.0, 1.0)
        calls.append(field.calls)
    assert calls[0] == calls[1]
    field.calls = 0
    adaptive(field, torch.ones(3, 2), 0.0, 1.0, method="euler")
    assert field.calls == 100


def test_unsolvable_problems_are_refused() -> None:
    x = torch.randn(3, 2)
    for arguments in ({"method": "dopri6"}, {"steps": 0}):
        with pytest.raises(ValueError, match="dopri5, dopri8"):
            adaptive(RING.velocity(Linear()), x, 0.0, 1.0, **arguments)
    with pytest.raises(ValueError, match="t != s"):
        adaptive(RING.velocity(Linear()), x, 0.5, 0.5)
    with pytest.raises(ValueError, match="stay away from an end at which the velocity is infinite"):
        adaptive(lambda x, t: x / (0.5 - t[:, None]).clamp(min=0), x, 0.0, 1.0)
    assert not adaptive(lambda x, t: x * torch.ones((), requires_grad=True), x, 0.0, 1.0).requires_grad


INCREMENTS = {"euler": 1, "milstein": 1, "heun": 2, "midpoint": 2, "euler_heun": 1}
"""With the calls that a step costs; `reversible_heun` costs one, and one more at the start."""


@pytest.mark.parametrize("method", [*INCREMENTS, "reversible_heun"])
def test_torchsde_solves_the_same_sde(method: str) -> None:
    x = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    velocity = Counted(WORLD.velocity(GVP()))
    sde = SDE(velocity, GVP(), SineSquared(1.5))
    times = torch.linspace(0, 0.9, 61, dtype=torch.float64) ** 1.1
    noise = Keyed(0, torch.arange(len(x)))
    reached = sdeint(sde, x, times, method=method, noise=noise)
    assert velocity.calls == (61 if method == "reversible_heun" else 60 * INCREMENTS[method])
    mean, std = WORLD.moments(GVP(), times[-1])
    assert reached.mean() == pytest.approx(float(mean), abs=0.03)
    assert reached.std() == pytest.approx(float(std), rel=0.05)
    by_own = sample(StochasticHeun(sde, noise), x, times)  # driven by the same noise
    assert (reached - by_own).abs().mean() < 0.05


def test_torchsde_euler_is_euler_maruyama_on_images_too() -> None:
    x = torch.randn(5, 1, 2, 2)
    sde = SDE(lambda x, t: torch.cos(x) * t.reshape(-1, 1, 1, 1), Linear(), Sigma(Linear()))
    noise, times = Keyed(1, torch.arange(5)), torch.tensor([0.0, 0.1, 0.3, 0.9])
    own = sample(EulerMaruyama(sde, noise), x, times)
    torch.testing.assert_close(sdeint(sde, x, times, noise=noise), own)
    torch.testing.assert_close(sdeint(sde, x, times, method="milstein", noise=noise), own)


def test_torchsde_takes_one_step_an_interval_however_it_is_rounded() -> None:
    field = Counted(lambda x, t: torch.cos(x) * torch.ones((), requires_grad=True))
    sde = SDE(field, Linear(), Sigma(Linear()))
    for dtype in (torch.float32, torch.float64):
        field.calls = 0
        times = torch.rand(300, generator=torch.Generator().manual_seed(0), dtype=dtype).mul(0.9).sort().values
        reached = sdeint(sde, torch.zeros(2, 1), times)
        assert field.calls == 299
        assert reached.dtype == torch.float32
        assert not reached.requires_grad


def test_reversible_heun_keeps_its_memory_from_step_to_step() -> None:
    """Kidger et al., arXiv 2105.13493, algorithm 1."""
    sde = SDE(RING.velocity(GVP()), GVP(), SineSquared(1.5))
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise, times = Keyed(0, torch.arange(6)), torch.linspace(0, 0.9, 12, dtype=torch.float64)
    y = z = x
    drift, w = sde(x, times[0])
    for t, s in itertools.pairwise(times):
        h, step = s - t, (s - t).sqrt() * noise(x, t, s)
        z = 2 * y - z + h * drift + w.sqrt() * step
        ahead, w_ahead = sde(z, s)
        y = y + h / 2 * (drift + ahead) + (w.sqrt() + w_ahead.sqrt()) / 2 * step
        drift, w = ahead, w_ahead
    torch.testing.assert_close(sdeint(sde, x, times, method="reversible_heun", noise=noise), y)


def test_the_default_noise_is_torchs() -> None:
    sde = SDE(RING.velocity(Linear()), Linear(), Sigma(Linear()))
    x, times = torch.randn(5, 2), torch.linspace(0, 0.9, 4)
    reached = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        reached.append(sdeint(sde, x, times))
    assert torch.equal(reached[0], reached[1])
    assert not torch.equal(reached[0], reached[2])


def test_torchsde_refuses_unsupported_arguments() -> None:
    sde = SDE(RING.velocity(Linear()), Linear(), KL(Linear()))
    x, times = torch.randn(3, 2), torch.linspace(0.1, 0.9, 4)
    refusals: list[tuple[Callable[[], Tensor], str]] = [
        (lambda: sdeint(sde, x, times, method="srk"), "euler, milstein, heun"),
        (lambda: sdeint(sde, x, times.flip(0)), "times must increase"),
        (lambda: sdeint(sde, x, torch.tensor([0.1, 0.5, 0.4])), "strictly increasing or decreasing"),
        (lambda: sdeint(sde, x, times[:1]), "at least two entries"),
        (lambda: sdeint(sde, x, torch.linspace(0, 0.9, 4)), r"w\(t\) must be finite"),
    ]
    for call, said in refusals:
        with pytest.raises(ValueError, match=said):
            call()
