"""No operation mixes devices, and waits for the GPU are bounded: on a simulated GPU (`simulated_gpu.py`)."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from simulated_gpu import GPU, MixedDevicesError, OnGPU, simulate_gpu
from sitkit.backbones import MLP, Mixture, MixtureBridge, SiT, dit
from sitkit.interpolants import GVP, VP, Interpolant, Linear
from sitkit.objectives import (
    Bridging,
    Data,
    Hybrid,
    LossCurve,
    Matching,
    Noise,
    OptimalTransport,
    Score,
    Velocity,
    sources,
)
from sitkit.samplers import (
    DDIM,
    KL,
    RK4,
    SDE,
    Ancestral,
    Autoguidance,
    Brownian,
    ClassifierFree,
    Conditional,
    Euler,
    EulerMaruyama,
    Exponential,
    ExponentialEuler,
    Field,
    Heun,
    Hutchinson,
    Keyed,
    KLEta,
    LearnedAncestral,
    Mean,
    Midpoint,
    Sigma,
    StochasticHeun,
    Tweedie,
    Window,
    adaptive,
    grids,
    log_likelihood,
    log_probs,
    plan,
    reparametrise,
    sample,
    sdeint,
    solve_each,
)
from stepping import made
from worlds import BRIDGES, FROM_NOISE, PATHS, random_mixture

ROWS = 4
TIMES = torch.tensor([0.125, 0.5, 0.75, 0.875], dtype=torch.float64)


@pytest.fixture
def waits() -> Iterator[Any]:
    with simulate_gpu() as counter:
        yield counter


def here(*shape: int) -> Tensor:
    return torch.randn(ROWS, *shape).to(GPU)


def model(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
    """A network of states, times and labels."""
    shape = (-1, *[1] * (x.ndim - 1))
    out = x.cos() * t.reshape(shape).to(x.dtype)
    return out if y is None else out * (1 + y.to(x.dtype)).reshape(shape)


def doubled(x: Tensor, t: Tensor) -> Tensor:
    return torch.cat([model(x, t), x.sin()], 1)


def assert_waits(waits: Any, run: Callable[[], Tensor], times: int = 0) -> None:
    """Assert the number of waits of a second call, and that its result is on the GPU."""
    run()
    waits.clear()
    result = run()
    assert isinstance(result, OnGPU)
    assert waits.total() == times, waits


def test_the_simulated_gpu_refuses_and_counts(waits: Any) -> None:
    x, y = torch.arange(6.0).to(GPU), torch.arange(6.0)
    assert x.device == GPU
    assert (x + 1).device == GPU
    assert (x + torch.tensor(1.0)).tolist() == [1, 2, 3, 4, 5, 6]
    for mixes in (lambda: x + y, lambda: torch.cat([x, y]), lambda: y[x.long()], lambda: x.add_(y)):
        with pytest.raises(MixedDevicesError, match="cuda:0"):
            mixes()  # type: ignore[no-untyped-call]
    for asks in (
        x.sum().item,
        lambda: bool((x > 0).all()),
        x.cpu,
        x.nonzero,
        lambda: x[y.long()],
        lambda: y.to(GPU),
        lambda: y.to(GPU, non_blocking=True),
        lambda: torch.tensor([1.0], device=GPU),
        lambda: torch.equal(x, x),
    ):
        waits.clear()
        asks()
        assert waits.total() == 1
    waits.clear()
    assert y.pin_memory().to(GPU, non_blocking=True).numbers.equal(y)  # type: ignore[attr-defined]
    assert torch.zeros(2, device=GPU).mul(3).mean().device == GPU
    assert waits.total() == 0


FIELDS: dict[str, Callable[[Tensor], Field]] = {
    "labels": lambda y: Conditional(model, y),
    "guidance": lambda y: ClassifierFree(model, y, 3, 2.0),
    "guidance in an interval": lambda y: ClassifierFree(model, y, 3, 2.0, (0.3, 0.6)),
    "autoguidance": lambda y: Autoguidance(Conditional(model, y), Conditional(model, y), 2.0, (0.3, 0.6)),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_guided_sampler_waits_for_nothing(waits: Any, name: str) -> None:
    """Times are sent once, before the first step."""
    field, x = FIELDS[name](torch.arange(ROWS).to(GPU)), here(2)
    planned = plan(Matching(Linear()).field(field), Linear(), evaluations=6)
    assert_waits(waits, lambda: sample(planned.solver, x, planned.times))
    assert_waits(waits, lambda: sample(Heun(field), x, TIMES))


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_solvers_mix_no_devices_and_wait_for_nothing(waits: Any, path: Interpolant) -> None:
    x, keyed = here(2, 2), Keyed(1, torch.arange(ROWS).to(GPU))
    velocity = Matching(path).field(model)
    curve = LossCurve((0.1, 0.5, 0.9), (1.0, 2.0, 3.0))
    for solver in (Euler(velocity), Midpoint(velocity), RK4(velocity), DDIM(velocity, path)):
        assert_waits(waits, partial(sample, solver, x, TIMES, Tweedie(velocity, path)))
    assert_waits(waits, lambda: sample(Exponential(velocity, path), x, TIMES))
    for w in (Sigma(path), KLEta(path, 0.3, curve)):
        sde = SDE(velocity, path, w)
        assert_waits(waits, partial(sample, EulerMaruyama(sde, keyed), x, TIMES, Mean(sde)))
        assert_waits(waits, partial(sample, StochasticHeun(sde, keyed), x, TIMES))
        assert_waits(waits, partial(sample, Exponential(velocity, path, w, noise=keyed), x, TIMES))
        assert_waits(waits, partial(sample, ExponentialEuler(velocity, path, w, noise=keyed), x, TIMES))
    windowed = EulerMaruyama(SDE(velocity, path, Window(KL(path), (0.3, 0.6))), keyed)
    assert_waits(waits, lambda: sample(windowed, x, TIMES))
    assert_waits(waits, lambda: sample(ExponentialEuler(velocity, path), x, TIMES))
    assert_waits(waits, lambda: sample(Ancestral(velocity, path, keyed), x, TIMES))
    assert_waits(waits, lambda: sample(LearnedAncestral(doubled, path, keyed), x, TIMES))
    planned = plan(velocity, path, w=Sigma(path), evaluations=3, interval=(0.05, 0.95), noise=keyed)
    assert_waits(waits, lambda: sample(planned.solver, x, planned.times))


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_transition_densities_wait_for_nothing_but_a_learnt_variance(waits: Any, path: Interpolant) -> None:
    x, velocity, times = here(2, 2), Matching(path).field(model), TIMES[TIMES <= 0.9]
    w = Sigma(path)
    for solver in (
        EulerMaruyama(SDE(velocity, path, w)),
        ExponentialEuler(velocity, path, w),
        ExponentialEuler(velocity, path, KL(path)),
        Ancestral(velocity, path),
    ):
        states = [x] * len(times)
        assert_waits(waits, partial(log_probs, solver, states, times))
        steps = torch.linspace(0.1, 0.8, ROWS).to(GPU)
        assert isinstance(solver.transition(x, steps, steps + 0.1).log_prob(x), OnGPU)
    learnt = LearnedAncestral(doubled, path)
    waits.clear()
    assert isinstance(log_probs(learnt, [x] * len(times), times), OnGPU)
    assert waits.total() == len(times) - 1


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_operations_that_read_values_mix_no_devices(waits: Any, path: Interpolant) -> None:
    """Adaptive solvers wait at each step: only the mixing of devices is tested here."""
    x, velocity = here(2, 2), Matching(path).field(model)
    sde = SDE(velocity, path, Sigma(path))
    found = [
        sdeint(sde, x, TIMES, method="heun", noise=Keyed(1, torch.arange(ROWS))),
        sample(EulerMaruyama(sde, Brownian(1, torch.arange(ROWS))), x, TIMES),
        adaptive(model, x, 0.1, 0.9, rtol=1e-2),
        solve_each(model, x, 0.1, 0.9, rtol=1e-2),
        *(reparametrise(velocity, path, to)(x, torch.full((ROWS,), 0.4).to(GPU)) for to in (Linear(), VP())),
    ]
    assert all(isinstance(one, OnGPU) for one in found)
    grids.measured(path, 4, velocity=velocity, x=x, interval=(0.1, 0.9))


def test_likelihoods_and_exact_fields_mix_no_devices(waits: Any) -> None:
    world, x = random_mixture(2, 2, seed=0), here(2)
    parts = (world.weights, world.means, world.covariances)
    there = Mixture(*(part.float().to(GPU) for part in parts))
    t = torch.full((ROWS,), 0.4).to(GPU)
    for field in (there.velocity, there.data, there.noise, there.score):
        assert_waits(waits, partial(field(GVP()), x, t))
    for divergence in (None, Hutchinson(2, 0)):
        more: dict[str, Any] = {} if divergence is None else {"divergence": divergence}
        found = log_likelihood(there.velocity(Linear()), x, rtol=1e-2, **more)
        assert isinstance(found.log_prob, OnGPU)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_objectives_wait_for_nothing_but_the_check_of_hybrids_times(waits: Any, path: Interpolant) -> None:
    """Which has a meaning only where a path that starts with pure noise has left it."""
    x, eps, t = here(2, 2, 2), here(2, 2, 2), torch.linspace(0.1, 0.9, ROWS).to(GPU)
    for quantity in (Velocity, Noise, Score, Data):
        assert_waits(waits, partial(Matching(path, quantity, Velocity), model, x, eps, t))
    assert_waits(waits, lambda: Hybrid(path)(doubled, x, eps, t), times=int(path in FROM_NOISE))


def test_bridges_wait_for_nothing(waits: Any) -> None:
    x, source, z, t = here(2, 2, 2), here(2, 2, 2), here(2, 2, 2), torch.linspace(0.1, 0.9, ROWS).to(GPU)
    worlds = [random_mixture(2, 2, seed) for seed in (0, 1)]
    there = [Mixture(*(part.float().to(GPU) for part in (w.weights, w.means, w.covariances))) for w in worlds]
    for coupling in (sources.Masked(), sources.Coarse(2, 0.1), sources.Noisy()):
        assert_waits(waits, partial(coupling, x, z))
    for bridge in BRIDGES:
        for objective in (Bridging(bridge), Bridging(bridge, antithetic=True)):
            assert_waits(waits, partial(objective, doubled, x, source, z, t))
        sde = SDE.of(objective.scored(doubled), Sigma(Linear()))
        assert_waits(waits, partial(sample, EulerMaruyama(sde), x, TIMES, Mean(sde)))
        assert_waits(waits, partial(sample, Heun(objective.field(doubled)), x, TIMES))
        exact = MixtureBridge(there[0], there[1], bridge)
        for field in (exact.drift, exact.noise, exact.velocity, exact.score):
            assert_waits(waits, partial(field, x[:, :, 0, 0], t))


def test_optimal_transport_waits_for_costs_and_labels(waits: Any) -> None:
    x, eps, y = here(2, 2), here(2, 2), torch.tensor([0, 1, 0, 1]).to(GPU)
    assert_waits(waits, lambda: OptimalTransport(2)(x, eps, y), times=1)
    assert_waits(waits, lambda: OptimalTransport(2, classwise=True)(x, eps, y), times=2)


SIZES: dict[str, Any] = {"input_size": 4, "in_channels": 1, "hidden_size": 16, "num_heads": 2, "patch_size": 2}


@pytest.mark.parametrize("network", [SiT(**SIZES, depth=1, num_classes=3), dit(**SIZES, depth=1, num_classes=3)])
def test_transformers_wait_for_nothing(waits: Any, network: nn.Module) -> None:
    network = network.to(GPU)
    x, t, y = here(1, 4, 4), torch.rand(ROWS).to(GPU), torch.tensor([0, 1, 2, 3]).to(GPU)
    assert_waits(waits, lambda: network(x, t, y).detach())
    assert_waits(waits, lambda: network(x, t).detach())
    waits.clear()
    network(x, t, y).square().mean().backward()
    assert waits.total() == 0
    assert isinstance(MLP(2).to(GPU)(here(2), t).detach(), OnGPU)


RECIPES = (
    (),
    ("path=gvp", "objective.predict=noise", "train.times.kind=logit_normal"),
    ("path=vp", "objective.predict=score", "train.times.kind=stratified", "objective.weight=likelihood"),
    ("path=ddpm", "objective=hybrid", "backbone.learn_sigma=true", "train.times.kind=grid"),
    ("optimizer.clip=0.1", "ema.widths=[0.1]", "ema.more=[0.9]", "train.flip=0.5"),
    ("compute.gradient_accumulation=2", "compute.activation_checkpointing=true", "compute.workers=1"),
)


@pytest.mark.parametrize("settings", RECIPES)
def test_a_step_of_training_waits_once(waits: Any, settings: tuple[str, ...]) -> None:
    take, batches = made(*settings, device=GPU)
    for step in (1, 2, 3):
        ready = batches(step)
        waits.clear()
        assert take(step, ready).nonfinite is None
        assert waits.total() == 1, waits
    assert all(isinstance(parameter, OnGPU) for parameter in take.state.network.parameters())


def test_a_step_with_optimal_transport_waits_twice_more(waits: Any) -> None:
    coupling = ("train.coupling.kind=optimal_transport", "train.coupling.block=4", "train.coupling.classwise=true")
    take, batches = made(*coupling, device=GPU)
    for step in (1, 2):
        ready = batches(step)
        waits.clear()
        take(step, ready)
        assert waits.total() == 3, waits
