"""Solvers give the same result in every grad mode, under transforms and in every precision."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sitkit.backbones import Mixture
from sitkit.interpolants import GVP, Linear
from sitkit.samplers import (
    KL,
    SDE,
    Euler,
    Exponential,
    Field,
    Heun,
    Hutchinson,
    Keyed,
    Mean,
    OneStep,
    Sigma,
    Tweedie,
    adaptive,
    grids,
    log_likelihood,
    plan,
    sample,
    sdeint,
    solve_each,
)
from solvers import NOISE, PATH, SOLVERS, TIMES, network, one_step, start
from worlds import PATHS, doubles

Call = Callable[[Field, Tensor], Tensor]
OTHERS: dict[str, Call] = {
    "plan": lambda v, x: _planned(v, x, None),
    "plan, KL": lambda v, x: _planned(v, x, KL(Linear())),
    "adaptive": lambda v, x: adaptive(v, x, 0.05, 0.95, rtol=1e-2, atol=1e-2),
    "adaptive, rk4": lambda v, x: adaptive(v, x, 0.05, 0.95, method="rk4", steps=4),
    "solve_each": lambda v, x: solve_each(v, x, 0.05, 0.95, rtol=1e-2, atol=1e-2),
    "log_likelihood": lambda v, x: log_likelihood(v, x, interval=(0.95, 0.05), rtol=1e-2, atol=1e-2).latent,
    "log_prob": lambda v, x: (
        log_likelihood(v, x, interval=(0.95, 0.05), divergence=Hutchinson(2, seed=0), rtol=1e-2, atol=1e-2).log_prob
    ),
    "sdeint": lambda v, x: sdeint(SDE(v, Linear(), Sigma(Linear())), x, TIMES, noise=NOISE),
    "sdeint, heun": lambda v, x: sdeint(SDE(v, Linear(), Sigma(Linear())), x, TIMES, method="heun", noise=NOISE),
}
ALL: dict[str, Call] = {
    **{name: lambda v, x, name=name: sample(SOLVERS[name](v, NOISE), x, TIMES) for name in SOLVERS},  # type: ignore[misc]
    **OTHERS,
}


def _planned(velocity: Field, x: Tensor, w: KL | None) -> Tensor:
    made = plan(velocity, Linear(), w=w, evaluations=5, noise=NOISE)
    return sample(made.solver, x, made.times)


@pytest.mark.parametrize("name", ALL)
def test_every_grad_mode_gives_the_same(name: str) -> None:
    model, x = network(), start()
    with torch.no_grad():
        expected = ALL[name](model, x)
    assert torch.equal(ALL[name](model, x), expected)
    with torch.inference_mode():
        assert torch.equal(ALL[name](model, x.clone()), expected)


@pytest.mark.filterwarnings(r"ignore:.*torch\.jit\.script")  # of torch's own forward mode, on its first call
@pytest.mark.parametrize("name", SOLVERS)
def test_the_loop_can_be_vmapped_and_differentiated(name: str) -> None:
    model, x = network().double(), start(torch.float64)

    def reached(x: Tensor) -> Tensor:
        noise = Keyed(0, torch.arange(len(x)))
        return [*SOLVERS[name](model, noise)(x, TIMES)][-1]

    stacked = torch.func.vmap(reached)(x.reshape(3, 2, 2))
    torch.testing.assert_close(stacked, torch.stack([reached(each) for each in x.reshape(3, 2, 2)]))
    direction = torch.ones_like(x)
    _, forward = torch.func.jvp(lambda x: reached(x).sum(), (x,), (direction,))  # type: ignore[misc]
    backward = (torch.func.grad(lambda x: reached(x).sum())(x) * direction).sum()
    h = 1e-5
    numeric = (reached(x + h * direction) - reached(x - h * direction)).sum() / (2 * h)
    torch.testing.assert_close(torch.stack([forward, backward]), numeric.detach().expand(2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_the_default_device_is_no_affair_of_solvers(name: str) -> None:
    """Tensors on the meta device have no values: one created there by mistake mixes devices or cannot be read."""
    model, x = network(), start()
    expected = ALL[name](model, x)
    with torch.device("meta"):
        assert torch.equal(ALL[name](model, x), expected)


@pytest.mark.parametrize("grid", [grids.uniform, grids.power, grids.shifted, grids.uniform_log_snr, grids.timesteps])
@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_grids_are_made_on_the_cpu_and_rise(grid: Callable[..., Tensor], path: Linear) -> None:
    expected = grid(path, 10)
    with torch.device("meta"):
        assert torch.equal(grid(path, 10), expected)
    assert (expected.diff() > 0).all()


def test_a_grid_that_does_not_rise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"of 2000 steps are both 0\.999\d* in float64: use fewer steps"):
        grids.power(Linear(), 2000, exponent=7.0)


def test_measured_grids_refuse_states_that_give_none() -> None:
    with pytest.raises(ValueError, match=r"needs at least one state, got x of shape \(0, 2\)"):
        grids.measured(Linear(), 5, velocity=network(), x=torch.zeros(0, 2))
    with pytest.raises(ValueError, match="the states are not finite with this velocity"):
        grids.measured(Linear(), 5, velocity=lambda x, t: x * torch.nan, x=start())
    fine = grids.measured(Linear(), 200, velocity=network().bfloat16(), x=start(torch.bfloat16), rounds=1)
    assert (fine.diff() > 0).all()


def test_a_solver_raises_after_the_maximum_number_of_steps() -> None:
    far = torch.tensor([[0.0, 0.0], [3e4, 0.0]], dtype=torch.float64)
    velocity = Mixture.isotropic(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.05).velocity(Linear())
    for call in (
        lambda: adaptive(velocity, far, 0, 1, max_steps=3),
        lambda: solve_each(velocity, far, 0, 1, max_steps=3),
        lambda: log_likelihood(velocity, far, max_steps=3),
    ):
        with pytest.raises(ValueError, match=r"max_steps"):
            call()


@pytest.mark.parametrize("solve", [adaptive, solve_each])
def test_no_time_beyond_the_interval_is_asked_for(solve: Callable[..., Tensor]) -> None:
    """Times are float32, which cannot represent 1 - 1e-9."""
    asked: list[float] = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        asked.extend(t.tolist())
        return x

    solve(velocity, torch.ones(2, 2), 1e-9, 1 - 1e-9)
    assert min(asked) >= 1e-9
    assert max(asked) <= 1 - 1e-9


def test_a_grid_is_measured_in_every_mode() -> None:
    model, x = network(), start()
    expected = grids.measured(Linear(), 5, velocity=model, x=x)
    with torch.inference_mode():
        assert torch.equal(grids.measured(Linear(), 5, velocity=model, x=x.clone()), expected)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_derivatives_of_a_path_exist_in_every_mode(path: Linear) -> None:
    t = torch.linspace(0.1, 0.9, 5)
    with torch.inference_mode():
        assert torch.equal(path.alpha_dot(t.clone()), path.alpha_dot(t))
    assert torch.equal(torch.func.vmap(path.sigma_dot)(t), path.sigma_dot(t))


def test_solvers_that_choose_their_steps_refuse_transforms() -> None:
    model = network()
    for call in (
        lambda x: adaptive(model, x, 0, 1),
        lambda x: solve_each(model, x, 0, 1),
        lambda x: log_likelihood(model, x).log_prob,
    ):
        with pytest.raises(ValueError, match=r"do not run inside of torch\.func's transforms"):
            torch.func.vmap(call)(torch.randn(3, 2, 2))


class Asked:
    """A field that records the dtypes of its arguments."""

    def __init__(self, field: Field):
        self.field = field
        self.dtypes: set[tuple[torch.dtype, torch.dtype]] = set()

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (len(x),)
        self.dtypes.add((x.dtype, t.dtype))
        return self.field(x, t)


@pytest.mark.parametrize("grid", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ALL)
def test_fields_are_asked_in_the_given_dtype_and_times_are_wide(
    name: str, dtype: torch.dtype, grid: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "TIMES", TIMES.to(grid))
    field = Asked(network().to(dtype))
    result = ALL[name](field, start(dtype))
    wide = torch.promote_types(dtype, torch.float32)
    assert field.dtypes == {(dtype, wide)}
    assert result.dtype == (wide if name == "log_prob" else dtype)


@pytest.mark.parametrize("name", ALL)
def test_a_half_precision_network_ends_near_its_double_precision_copy(name: str) -> None:
    model, x = network().bfloat16().float(), start(torch.bfloat16)
    expected = ALL[name](model, x.float())
    reached = ALL[name](network().bfloat16(), x)
    loose = 0.1 if name == "solve_each" else 0.02  # a rounded velocity has noise, to which step sizes react
    torch.testing.assert_close(reached.float(), expected, rtol=loose, atol=3 * loose)


@pytest.mark.parametrize("last", [Euler, lambda v: Tweedie(v, PATH), lambda v: Mean(SDE(v, PATH, Sigma(PATH)))])
def test_last_steps_return_the_given_dtype(last: Callable[[Field], OneStep]) -> None:
    model = network().bfloat16()
    assert sample(Heun(model), start(torch.bfloat16), TIMES, last(model)).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_small_steps_add_up_in_every_precision(dtype: torch.dtype) -> None:
    times = torch.linspace(0, 1, 1001, dtype=torch.float64)
    reached = sample(Euler(lambda x, t: torch.ones_like(x)), torch.zeros(2, 3, dtype=dtype), times)
    torch.testing.assert_close(reached, torch.ones(2, 3, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", SOLVERS)
def test_yielded_states_can_be_edited(name: str, dtype: torch.dtype) -> None:
    """An edit equals a start from the edited state, bit for bit but for rounding in unedited rows."""
    model, wanted = network().to(dtype), torch.full((6, 2), 2.7, dtype=dtype)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            states = []
            for number, state in enumerate(SOLVERS[name](model, NOISE)(start(dtype), TIMES)):
                if number == 3:
                    state[...] = wanted
                states.append(state.clone())
            anew = [*SOLVERS[name](model, NOISE)(wanted.clone(), TIMES[3:])]
        assert all(torch.equal(one, other) for one, other in zip(states[3:], anew, strict=True))


def test_edits_are_seen_under_vmap_too() -> None:
    model = network()

    def reached(x: Tensor) -> Tensor:
        for number, state in enumerate(Exponential(model, Linear())(x, TIMES)):
            if number == 3:
                state.mul_(0)
        return state

    expected = [*Exponential(model, Linear())(torch.zeros(2, 2), TIMES[3:])][-1]
    torch.testing.assert_close(torch.func.vmap(reached)(torch.randn(3, 2, 2)), expected.expand(3, 2, 2))


@pytest.mark.parametrize("name", SOLVERS)
def test_a_step_takes_a_time_for_each_row(name: str) -> None:
    model = network().double()
    noise: Callable[..., Tensor] = lambda x, t, s: torch.ones_like(x)  # noqa: E731
    solver = one_step(name, model, noise)
    if solver is None:
        return
    x = torch.randn(2, 2, dtype=torch.float64)  # as many columns as rows
    t, s = doubles(0.1, 0.5), doubles(0.4, 0.6)
    rows = [solver.step(x[n : n + 1], t[n], s[n]) for n in range(2)]
    torch.testing.assert_close(solver.step(x, t, s), torch.cat(rows))
    with pytest.raises(ValueError, match=r"times? must be (a scalar|scalars) or have shape|t must be a scalar"):
        solver.step(x, doubles(0.1, 0.2, 0.3), doubles(0.4, 0.5, 0.6))


def test_columns_are_not_scaled_by_the_times_of_rows() -> None:
    euler = Euler(lambda x, t: torch.ones_like(x))
    reached = euler.step(torch.zeros(2, 2), torch.tensor([0.0, 0.5]), torch.ones(2))
    assert torch.equal(reached, torch.tensor([[1.0, 1.0], [0.5, 0.5]]))


@pytest.mark.parametrize("shape", [(0, 2), (4,), (0,), (1, 2), (3, 1, 2, 2)])
@pytest.mark.parametrize("name", [name for name in ALL if name != "LearnedAncestral"])
def test_states_of_every_shape(name: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "NOISE", Keyed(0, torch.arange(shape[0])))
    x = torch.randn(shape)
    result = ALL[name](lambda x, t: -x, x)
    assert result.shape == (shape[:1] if name == "log_prob" else shape)
    assert result.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [*SOLVERS, "sdeint"])
def test_half_precision_times_are_used_as_given(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eighths are exact in half precision, so alpha and sigma at them must not have its rounding error."""
    monkeypatch.setattr("solvers.PATH", GVP())
    monkeypatch.setitem(ALL, "sdeint", lambda v, x: sdeint(SDE(v, GVP(), Sigma(GVP())), x, TIMES, noise=NOISE))
    reached = []
    for times in (torch.arange(1, 8, dtype=dtype) / 8, torch.arange(1, 8) / 8):
        monkeypatch.setitem(globals(), "TIMES", times)
        reached.append(ALL[name](network(), start()))
    torch.testing.assert_close(*reached)


def test_a_step_of_half_precision_is_refused() -> None:
    class Rough(Euler):
        def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
            return x + (s - t).to(x.dtype) * self.velocity(x, t.expand(len(x)))

    with pytest.raises(ValueError, match=r"Rough\.step must return float32 at least, got torch\.bfloat16"):
        sample(Rough(lambda x, t: x), torch.ones(2, 2, dtype=torch.bfloat16), TIMES)


def test_states_are_floating_point() -> None:
    x = torch.zeros(6, 2, dtype=torch.int64)
    for call in ALL.values():
        with pytest.raises(ValueError, match=r"states must be floating point, got torch\.int64"):
            call(lambda x, t: x, x)
