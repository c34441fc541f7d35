"""Half precision, compilation, and images as wide as the batch: none of them changes a result."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from marks import slow_unless
from sitkit.backbones import MLP, SiT
from sitkit.interpolants import Interpolant, Linear
from sitkit.objectives import Data, Hybrid, Matching, Noise, Objective, Quantity, Score, Velocity, weights
from sitkit.samplers import (
    DDIM,
    RK4,
    SDE,
    Ancestral,
    Euler,
    EulerMaruyama,
    Field,
    Heun,
    Keyed,
    KLEta,
    Mean,
    Midpoint,
    OneStep,
    Sigma,
    StochasticHeun,
    Tweedie,
    sample,
)
from worlds import PATHS, Quadratic, on_images, random_mixture

QUANTITIES = (Velocity, Noise, Score, Data)


@pytest.fixture(autouse=True)
def _jvp_has_been_used() -> None:
    """Call torch 2.13's first jvp, which warns, where the library filters the warning: it cannot under compilation."""
    Quadratic().alpha_dot(torch.tensor(0.5))


def steps(velocity: Field, path: Interpolant, noise: Callable[..., Tensor]) -> list[OneStep]:
    sde = SDE(velocity, path, Sigma(path))
    eta = SDE(velocity, path, KLEta(path, 0.3, lambda t: 1 + t))
    solvers: list[OneStep] = [Euler(velocity), Midpoint(velocity), Heun(velocity), RK4(velocity), DDIM(velocity, path)]
    solvers += [EulerMaruyama(sde, noise), StochasticHeun(eta, noise), Ancestral(velocity, path, noise)]
    return [*solvers, Mean(sde), Tweedie(velocity, path)]


def wave_steps(path: Interpolant) -> list[OneStep]:
    return steps(lambda x, t: x.cos() * t[:, None], path, lambda x, t, s: torch.ones_like(x))


CALLING_THE_WHOLE_PATH = (DDIM, StochasticHeun, Ancestral, Tweedie)
"""Solvers that together call each function of the path."""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        slow_unless(isinstance(path, Linear | Quadratic) or kind in CALLING_THE_WHOLE_PATH, path, kind)
        for path, kind in itertools.product(PATHS, [type(one) for one in wave_steps(Linear())])
    ],
)
def test_every_step_compiles_whole(path: Interpolant, kind: type[OneStep]) -> None:
    x, t, s = torch.randn(8, 2), torch.tensor(0.3), torch.tensor(0.4)
    (solver,) = (one for one in wave_steps(path) if type(one) is kind)
    torch.compiler.reset()
    compiled = torch.compile(solver.step, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, t, s), solver.step(x, t, s))


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_every_loss_compiles_whole(path: Interpolant) -> None:
    x, eps, t = torch.randn(8, 2, 1), torch.randn(8, 2, 1), torch.linspace(0.1, 0.9, 8)
    losses: list[Objective] = [Matching(path, q, weight=weights.likelihood(path)) for q in QUANTITIES]
    losses += [Matching(path, q, measure=Velocity) for q in QUANTITIES]
    twice: Field = lambda x, t: torch.cat([x, x.sin()], 1)  # noqa: E731
    once: Field = lambda x, t: torch.cos(x)  # noqa: E731
    losses.append(Hybrid(path))
    for loss in losses:
        network = twice if isinstance(loss, Hybrid) else once
        torch.compiler.reset()
        compiled = torch.compile(loss, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(network, x, eps, t), loss(network, x, eps, t))


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_images_as_wide_as_the_batch_are_transported_row_by_row(path: Interpolant) -> None:
    world = random_mixture(2, 9, seed=0)
    x = torch.randn(3, 1, 3, 3, dtype=torch.float64)
    t, s = torch.tensor([0.5, 0.55], dtype=torch.float64)
    velocity = on_images(world.velocity(path))
    for number, solver in enumerate(steps(velocity, path, Keyed(0, torch.arange(3)))):
        together = solver.step(x, t, s)
        for k in range(3):
            alone = steps(velocity, path, Keyed(0, torch.arange(k, k + 1)))[number].step(x[k : k + 1], t, s)
            torch.testing.assert_close(together[k : k + 1], alone)


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("predict", QUANTITIES)
def test_networks_in_bfloat16_see_times_in_float32_and_are_sampled_in_it(
    path: Interpolant, predict: type[Quantity]
) -> None:
    torch.manual_seed(0)
    network = MLP(features=2, hidden_size=16)
    torch.nn.init.normal_(network.out.weight, std=0.1)
    seen: list[torch.dtype] = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t.dtype)
        return network(x, t)  # type: ignore[no-any-return]

    x, eps, t = torch.randn(8, 2), torch.randn(8, 2), torch.linspace(0.1, 0.9, 8)
    objective = Matching(path, predict)
    velocity = objective.field(model)
    noise, times = Keyed(0, torch.arange(8)), torch.linspace(0.1, 0.9, 9)
    solver = EulerMaruyama(SDE(velocity, path, Sigma(path)), noise)
    exact_loss, exact = objective(model, x, eps, t), sample(solver, eps, times)
    with torch.autocast("cpu", torch.bfloat16):
        loss, state = objective(model, x, eps, t), sample(solver, eps, times)
        loss.mean().backward()  # type: ignore[no-untyped-call]
    assert loss.dtype == state.dtype == torch.float32
    assert set(seen) == {torch.float32}
    torch.testing.assert_close(loss, exact_loss, rtol=0.05, atol=0.05)
    torch.testing.assert_close(state, exact, rtol=0.1, atol=0.15)
    assert network.out.weight.grad is not None


def test_a_compiled_transformer_is_the_same_field() -> None:
    torch.manual_seed(0)
    network = SiT(input_size=4, patch_size=2, in_channels=1, hidden_size=16, depth=1, num_heads=2, num_classes=3)
    torch.nn.init.normal_(network.final_layer.linear.weight, std=0.1)
    x, t, y = torch.randn(3, 1, 4, 4), torch.rand(3), torch.tensor([0, 1, 3])
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, t, y), network(x, t, y))
    loss = torch.compile(Matching(Linear()), fullgraph=True, backend="eager")
    torch.testing.assert_close(loss(network, x, x.flip(0), t), Matching(Linear())(network, x, x.flip(0), t))


def test_times_in_double_leave_single_states_single() -> None:
    x, (t, s) = torch.randn(4, 2), torch.tensor([0.3, 0.4], dtype=torch.float64)
    for path in PATHS:
        velocity = random_mixture(2, 2, seed=0).velocity(path)
        for solver in steps(velocity, path, Keyed(0, torch.arange(4))):
            assert solver.step(x, t, s).dtype == torch.float32, solver
