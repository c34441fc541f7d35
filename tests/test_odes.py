"""Laws of ODE solvers."""

import itertools
from collections.abc import Callable
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sitkit.interpolants import DDPM, GVP, VP, Interpolant, Linear
from sitkit.samplers import (
    DDIM,
    RK4,
    SDE,
    ClassifierFree,
    Constant,
    Counted,
    Euler,
    Field,
    Heun,
    Mean,
    Midpoint,
    OneStep,
    Tweedie,
    adaptive,
    measured_order,
    sample,
)
from sitkit.samplers import reparametrise as read_along
from sitkit.samplers.known_time import with_known_time
from worlds import FROM_NOISE, PATHS, RING, Gaussian, doubles, random_mixture, slope

SOLVERS: dict[type[OneStep], int] = {Euler: 1, Midpoint: 2, Heun: 2, RK4: 4}
"""With the calls that a step costs."""


@cache
def exact_flow(path: Interpolant) -> tuple[Field, Tensor, Tensor]:
    """Return a velocity, states at t = 0.1 and where it carries them until t = 0.9."""
    velocity, x = random_mixture(2, 1, seed=0).velocity(path), doubles(-1.0, 0.0, 2.0)[:, None]
    return velocity, x, adaptive(velocity, x, 0.1, 0.9, method="dopri8", rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("solver", [*SOLVERS, DDIM])
@pytest.mark.parametrize("grids", [(32, 64, 128), pytest.param((32, 64, 128, 256), marks=pytest.mark.slow)])
def test_solvers_have_their_stated_order(path: Interpolant, solver: type[OneStep], grids: tuple[int, ...]) -> None:
    velocity, x, exact = exact_flow(path)
    errors = []
    for steps in grids:
        times = torch.linspace(0.1, 0.9, steps + 1, dtype=torch.float64)
        made = DDIM(velocity, path) if solver is DDIM else solver(velocity)  # type: ignore[call-arg]
        errors.append(float((sample(made, x, times) - exact).abs().max()))
    assert slope(grids, errors) == pytest.approx(solver.order, abs=0.15)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_order_measured_for_users_is_the_stated_one(solver: type[OneStep]) -> None:
    assert measured_order(solver) == pytest.approx(solver.order, abs=0.15)


def test_noiseless_steps_are_of_their_stated_order() -> None:
    def mean_steps(velocity: Field) -> Mean:
        return Mean(SDE(velocity, Linear(), Constant(0.0)))

    assert measured_order(mean_steps) == pytest.approx(Mean.order, abs=0.15)


def test_the_order_of_a_solver_with_memory_is_measured_too() -> None:
    def adams_bashforth(velocity: Field) -> Callable[..., object]:
        def solver(x, times):  # type: ignore[no-untyped-def]
            before = None
            yield x
            for t, s in itertools.pairwise(times):
                now = velocity(x, t.expand(len(x)))
                x = x + (s - t) * (now if before is None else 1.5 * now - 0.5 * before)
                before = now
                yield x

        return solver

    assert measured_order(adams_bashforth) == pytest.approx(2, abs=0.15)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two or more grids"):
        measured_order(Euler, grids=[10])
    with pytest.raises(ValueError, match="numbers of steps that increase"):
        measured_order(Euler, grids=[8, 8])
    with pytest.raises(ValueError, match="no finite state"):
        measured_order(lambda velocity: Euler(lambda x, t: x / 0))


@pytest.mark.parametrize(("solver", "calls"), SOLVERS.items())
def test_ode_steps_have_their_stated_nfe(solver: Callable[..., OneStep], calls: int) -> None:
    field = Counted(RING.velocity(Linear()))
    sample(solver(field), torch.randn(6, 2), torch.linspace(0, 0.9, 11))
    assert (field.calls, field.rows) == (10 * calls, 10 * calls * 6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_odes_run_both_ways(solver: Callable[..., OneStep]) -> None:
    x = torch.randn(5, 2, dtype=torch.float64)
    times = torch.linspace(0.05, 0.95, 200, dtype=torch.float64)
    velocity = RING.velocity(GVP())
    there = sample(solver(velocity), x, times)
    torch.testing.assert_close(sample(solver(velocity), there, times.flip(0)), x, rtol=0, atol=0.05)


def test_a_solver_yields_the_state_at_every_time() -> None:
    x = torch.randn(5, 2)
    states = [*Euler(RING.velocity(Linear()))(x, torch.linspace(0, 0.5, 4))]
    assert len(states) == 4
    assert states[0] is x


def test_samples_keep_no_gradients() -> None:
    scale = torch.ones((), requires_grad=True)
    assert not sample(Euler(lambda x, t: scale * x), torch.randn(2, 2), torch.tensor([0.0, 1.0])).requires_grad


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (torch.tensor([0.5]), "at least two entries"),
        (torch.zeros(0), r"of shape \(N,\), N >= 1"),
        (torch.tensor([[0.0, 1.0]]), r"of shape \(N,\), N >= 1"),
        (torch.tensor([0, 1]), "must be floating point"),
        (torch.tensor([0.0, 0.5, 0.4]), "strictly increasing or decreasing"),
        (torch.tensor([0.0, 0.0]), "strictly increasing or decreasing"),
        (torch.tensor([0.0, float("nan")]), "must be finite"),
        (torch.tensor([0.0, float("inf")]), "must be finite"),
    ],
)
def test_invalid_grids_are_refused(times: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        sample(Euler(lambda x, t: x), torch.randn(2, 2), times)
    with pytest.raises(ValueError, match=said):
        sample(lambda x, times: iter([x]), torch.randn(2, 2), times)
    if times.shape != (1,):
        with pytest.raises(ValueError, match=said):
            list(Euler(lambda x, t: x)(torch.randn(2, 2), times))


def test_jumps_to_the_data_cost_one_call() -> None:
    field = Counted(RING.velocity(Linear()))
    x, t, s = torch.randn(4, 2), torch.tensor(0.4), torch.tensor(1.0)
    Tweedie(field, Linear()).step(x, t, s)
    assert field.calls == 1
    DDIM(field, Linear()).step(x, t, s)
    assert field.calls == 2


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_tweedie_is_the_posterior_mean_and_the_end_of_ddim(path: Interpolant) -> None:
    x, t = torch.randn(6, 2, dtype=torch.float64), doubles(0.6)[0]
    expected = RING.data(path)(x, t.expand(6))
    velocity = RING.velocity(path)
    torch.testing.assert_close(Tweedie(velocity, path).step(x, t, doubles(1.0)[0]), expected)
    torch.testing.assert_close(DDIM(velocity, path).step(x, t, doubles(1.0)[0]), expected)


@pytest.mark.parametrize("path", FROM_NOISE, ids=repr)
def test_tweedie_misses_the_end_as_a_step_of_its_order_does(path: Interpolant) -> None:
    world, x = Gaussian(mean=1.5, std=0.5), doubles(-1.0, 0.0, 2.0)[:, None]
    lengths, errors = [0.1, 0.05, 0.025, 0.0125], []
    for h in lengths:
        t, end = doubles(1 - h, 1)
        reached = Tweedie(world.velocity(path), path).step(x, t, end)
        errors.append(float((reached - world.flow(path, x, t, end)).abs().max()))
    assert slope([1 / h for h in lengths], errors) == pytest.approx(Tweedie.order + 1, abs=0.15)


@pytest.mark.parametrize("trained", FROM_NOISE, ids=repr)
def test_ends_are_passed_as_exact_ends(trained: Interpolant) -> None:
    asked: list[float] = []

    def velocity(x, t):  # type: ignore[no-untyped-def]
        assert t.dtype == torch.float32
        asked.extend(t.tolist())
        return x

    field = read_along(velocity, trained, Linear())
    if trained.alpha_dot(torch.zeros(())) > 0:
        field(torch.randn(2, 2), torch.tensor([0.0, 1.0]))
    else:  # the velocity at t = 0 does not determine the data
        with pytest.raises(ValueError, match="conversion from velocity to data is not finite at t = 0"):
            field(torch.randn(2, 2), torch.tensor([0.0, 1.0]))
    assert asked == [0.0, 1.0]


def test_ddim_on_the_straight_path_is_euler() -> None:
    velocity, x = RING.velocity(Linear()), torch.randn(6, 2, dtype=torch.float64)
    times = torch.linspace(0, 1, 9, dtype=torch.float64)
    torch.testing.assert_close(
        sample(DDIM(velocity, Linear()), x, times), sample(Euler(velocity), x, times), rtol=1e-12, atol=1e-12
    )


@given(st.sampled_from(PATHS), st.sampled_from(PATHS), st.floats(0.02, 0.98), st.integers(0, 99))
def test_a_reparametrised_field_is_exact(trained, to, t, seed) -> None:  # type: ignore[no-untyped-def]
    world = random_mixture(3, 3, seed=1)
    times = torch.full((5,), t, dtype=torch.float64)
    if to.alpha(times[0]) * trained.sigma(torch.zeros(())) < to.sigma(times[0]) * trained.alpha(torch.zeros(())):
        return  # noisier than the other path ever is
    x = world.along(to, t).draw(5, torch.Generator().manual_seed(seed))
    field = Counted(world.velocity(trained))
    read = read_along(field, trained, to)(x, times)
    torch.testing.assert_close(read, world.velocity(to)(x, times), rtol=1e-7, atol=1e-7)
    assert field.calls == 1


@pytest.mark.parametrize("trained", [Linear(), GVP(), VP(), DDPM()], ids=repr)
@pytest.mark.parametrize("to", [Linear(), GVP(), VP(), DDPM()], ids=repr)
@pytest.mark.parametrize("host", [False, True])
def test_a_reparametrised_field_is_accurate_in_single_precision_up_to_the_data(
    trained: Interpolant, to: Interpolant, host: bool
) -> None:
    """On VP and DDPM rounding of a time next to 1 changes the noise level, and at 1 the velocity is infinite."""
    world = random_mixture(3, 3, seed=1)
    field = read_along(world.velocity(trained), trained, to)
    for time in (0.1, 0.5, 0.99, 1 - 1e-3, 1 - 1e-4, 1 - 1e-5, 1 - 1e-6, 1.0):
        t = torch.full((64,), time)
        x = world.along(to, float(t[0])).draw(64, torch.Generator().manual_seed(0)).float()
        if not to.sigma_dot(t[0].double()).isfinite():
            with pytest.raises(ValueError, match="not finite at t = 1"):
                field(x, t)
            continue
        read, exact = field(x, with_known_time(t, time) if host else t), world.velocity(to)(x.double(), t.double())
        allowed = 1e-5 * exact.norm()
        if trained == Linear():  # a velocity that is mostly data determines the noise poorly
            allowed += 3e-7 * to.sigma_dot(t[0]).abs() * x.norm()
        assert (read - exact).norm() <= allowed


def test_times_known_on_the_host_are_matched_there_once() -> None:
    """On the device `meta` no value can be read, and every operation is one that a GPU would run."""

    class OnDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
        """Counts the operations on a device, and those on the host."""

        device, host = 0, 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            made = func(*args, **(kwargs or {}))
            there = isinstance(made, Tensor) and made.device.type == "meta"
            self.device, self.host = self.device + there, self.host + (not there)
            return made

    x, field = torch.randn(5, 2, device="meta"), read_along(lambda x, t: torch.sin(x), VP(), Linear())
    counts = []
    for _ in range(2):
        t = with_known_time(torch.full((5,), 0.3, device="meta"), 0.3)
        with OnDevice() as counted:  # type: ignore[no-untyped-call]
            assert field(x, t).device.type == "meta"
        counts.append(counted)
    assert counts[0].device < 60
    assert counts[1].device == counts[0].device
    assert counts[1].host < 0.7 * counts[0].host


def test_reparametrised_fields_keep_jumps_and_rows() -> None:
    y = torch.arange(5)

    def network(x: Tensor, t: Tensor, /, *, y: Tensor) -> Tensor:
        return x * y[:, None] + t[:, None]

    guided = read_along(ClassifierFree(network, y, 9, 2.0, (0.2, 0.8)), GVP(), Linear())
    for jump, time in zip(guided.jumps, (0.2, 0.8), strict=True):  # type: ignore[attr-defined]
        alpha, sigma = (function(torch.tensor(time, dtype=torch.float64)) for function in (GVP().alpha, GVP().sigma))
        assert jump == pytest.approx(float(alpha / (alpha + sigma)), rel=1e-12)
    x, t, index = torch.randn(5, 2), torch.linspace(0.05, 0.95, 5), torch.tensor([3, 1])
    torch.testing.assert_close(guided.rows(index)(x[index], t[index]), guided(x, t)[index])  # type: ignore[attr-defined]
    assert not hasattr(read_along(lambda x, t: x, GVP(), Linear()), "rows")
    for count in (0, 1, 3):
        for shape in ((), (2,)):
            x, t = torch.randn(count, *shape), torch.full((count,), 0.3)
            assert read_along(lambda x, t: x, GVP(), VP())(x, t).shape == x.shape
    half = read_along(lambda x, t: x, GVP(), VP())
    asked: list[torch.dtype] = []
    read_along(lambda x, t: (asked.extend((x.dtype, t.dtype)), x)[1], GVP(), VP())(x.bfloat16(), t)  # type: ignore[func-returns-value]
    assert asked == [torch.bfloat16, torch.float32]
    x, t = torch.randn(4, 2), torch.tensor([0.1, 0.4, 0.6, 0.99])
    torch.testing.assert_close(torch.func.vmap(lambda x, t: half(x[None], t[None])[0])(x, t), half(x, t))
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(half, fullgraph=True, backend="eager")(x, t), half(x, t))


@pytest.mark.parametrize("to", FROM_NOISE, ids=repr)
def test_a_reparametrised_field_samples_from_end_to_end(to: Interpolant) -> None:
    x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    velocity = read_along(RING.velocity(GVP()), GVP(), to)
    start = 0.0 if to in (Linear(), GVP()) else 0.02  # where alpha_dot(0) = 0, the velocity does not determine the data
    times = torch.linspace(start, 1, 101)
    assert RING.log_prob(sample(Heun(velocity), x, times)).mean() == pytest.approx(
        float(RING.log_prob(RING.draw(20_000, torch.Generator().manual_seed(1))).mean()), abs=0.1
    )
    images = torch.randn(3, 1, 1, 3)[..., :2]
    wide = read_along(lambda x, t: x * t.reshape(-1, 1, 1, 1), GVP(), to)(images, torch.tensor([0.2, 0.5, 0.8]))
    assert wide.shape == images.shape
