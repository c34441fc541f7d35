"""Fields of posterior samples in every grad mode, under transforms, in every precision, shape and device."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sitkit.interpolants import Linear
from sitkit.samplers import (
    KL,
    Field,
    Heun,
    Inpainting,
    MomentMatching,
    Rewarded,
    adaptive,
    log_likelihood,
    plan,
    sample,
    solve_each,
)
from sitkit.samplers.known_time import known_time
from solvers import NOISE, PATH, TIMES, network, start

MASK = torch.tensor([1.0, 0.0])
Y = torch.arange(6.0)[:, None] * MASK / 4
START = torch.linspace(0, 0.1, 3)
"""Times from t = 0, before and after the least time of derivatives."""


def matched(velocity: Field, y: Tensor | None = None) -> MomentMatching:
    return MomentMatching(velocity, PATH, Inpainting(MASK), Y if y is None else y, 0.3, iterations=2)


def rewarded(velocity: Field) -> Rewarded:
    return Rewarded(velocity, PATH, lambda x: (x - 1).cos().sum(1), 0.5)


def planned(velocity: Field, x: Tensor) -> Tensor:
    made = plan(velocity, PATH, w=KL(PATH), evaluations=5, noise=NOISE)
    return sample(made.solver, x, made.times)


FIELDS: dict[str, Callable[[Field], Field]] = {"MomentMatching": matched, "Rewarded": rewarded}
CALLS: dict[str, Callable[[Field, Tensor], Tensor]] = {
    "Heun": lambda v, x: sample(Heun(v), x, TIMES),
    "from 0": lambda v, x: sample(Heun(v), x, START),
    "plan, KL": planned,
    "adaptive": lambda v, x: adaptive(v, x, 0.05, 0.95, rtol=1e-2, atol=1e-2),
    "solve_each": lambda v, x: solve_each(v, x, 0.05, 0.95, rtol=1e-2, atol=1e-2),
    "log_likelihood": lambda v, x: log_likelihood(v, x, interval=(0.9, 0.4), rtol=1e-1, atol=1e-1).log_prob,
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("name", CALLS)
def test_every_grad_mode_and_default_device_gives_the_same(name: str, field: str) -> None:
    model, x = network(), start()
    with torch.no_grad():
        expected = CALLS[name](FIELDS[field](model), x)
    assert torch.equal(CALLS[name](FIELDS[field](model), x), expected)
    with torch.inference_mode():
        assert torch.equal(CALLS[name](FIELDS[field](model), x.clone()), expected)
        within = MomentMatching(model, PATH, Inpainting(MASK.clone()), Y.clone(), 0.3, iterations=2)
        assert field == "Rewarded" or torch.equal(CALLS[name](within, x.clone()), expected)
    with torch.device("meta"):
        assert torch.equal(CALLS[name](FIELDS[field](model), x), expected)


@pytest.mark.filterwarnings(r"ignore:.*torch\.jit\.script")  # of torch's forward mode, on its first call
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("times", [TIMES, START], ids=["inside", "from 0"])
def test_the_loop_can_be_vmapped_and_differentiated(field: str, times: Tensor) -> None:
    model, x = network().double(), start(torch.float64)
    directions = torch.ones_like(x)

    def reached(x: Tensor) -> Tensor:
        field_of_rows = (
            matched(model, MASK.double().expand(len(x), 2)) if field == "MomentMatching" else rewarded(model)
        )
        return [*Heun(field_of_rows)(x, times)][-1]

    stacked = torch.func.vmap(reached)(x.reshape(3, 2, 2))
    torch.testing.assert_close(stacked, torch.stack([reached(each) for each in x.reshape(3, 2, 2)]))
    _, forward = torch.func.jvp(lambda x: reached(x).sum(), (x,), (directions,))  # type: ignore[misc]
    backward = (torch.func.grad(lambda x: reached(x).sum())(x) * directions).sum()
    leaf = x.clone().requires_grad_()
    (plain,) = torch.autograd.grad(reached(leaf).sum(), leaf)
    h = 1e-5
    numeric = (reached(x + h * directions) - reached(x - h * directions)).sum() / (2 * h)
    found = torch.stack([forward, backward, (plain * directions).sum()])
    torch.testing.assert_close(found, numeric.detach().expand(3), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("field", FIELDS)
def test_parameters_and_observations_have_gradients(field: str) -> None:
    model, x, t = network().double(), start(torch.float64), torch.full((6,), 0.4, dtype=torch.float64)
    y = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    weight = model.out.weight
    leaves = (weight, y) if field == "MomentMatching" else (weight,)

    def value() -> Tensor:
        return (matched(model, y) if field == "MomentMatching" else rewarded(model))(x, t).square().sum()

    for leaf, gradient in zip(leaves, torch.autograd.grad(value(), leaves), strict=True):
        step = torch.zeros_like(leaf)
        step.view(-1)[0] = 1e-5
        with torch.no_grad():
            values = [value() for change in (1, -2, 1) if leaf.add_(change * step) is not None]
        torch.testing.assert_close(gradient.flatten()[0], (values[0] - values[1]) / 2e-5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("field", FIELDS)
def test_gradients_are_recorded_only_for_what_requires_them(field: str) -> None:
    model = network().requires_grad_(False)
    x, t = start(), torch.full((6,), 0.4)
    assert not FIELDS[field](model)(x, t).requires_grad
    assert FIELDS[field](model)(x.clone().requires_grad_(), t).requires_grad
    assert FIELDS[field](network())(x, t).requires_grad
    with torch.no_grad():
        assert not FIELDS[field](network())(x, t).requires_grad


class Asked(nn.Module):
    """A network that records the dtypes of its arguments."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.model, self.dtypes = network().to(dtype), set[tuple[torch.dtype, torch.dtype]]()

    def forward(self, x: Tensor, t: Tensor) -> Any:
        assert t.shape == (len(x),)
        self.dtypes.add((x.dtype, t.dtype))
        return self.model(x, t)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("field", FIELDS)
def test_networks_are_called_in_the_dtype_of_the_states_and_results_have_it(field: str, dtype: torch.dtype) -> None:
    asked, x = Asked(dtype), start(dtype)
    guided = FIELDS[field](asked)
    assert guided(x, torch.full((6,), 0.5)).dtype == dtype
    reached = sample(Heun(guided), x, TIMES.double())
    assert asked.dtypes == {(dtype, torch.promote_types(dtype, torch.float32)), (dtype, torch.float32)}
    assert reached.dtype == dtype
    exact = sample(Heun(FIELDS[field](network().to(dtype).double())), x.double(), TIMES)
    torch.testing.assert_close(reached.double(), exact, rtol=0.05, atol=0.1)


@pytest.mark.parametrize("field", FIELDS)
def test_each_row_has_its_time(field: str) -> None:
    """As many columns as rows, at both ends, before and after the least time of derivatives."""
    model, x = network(), torch.randn(2, 2)
    for t in (torch.tensor([0.0, 0.5]), torch.tensor([0.004, 0.007]), torch.tensor([0.3, 1.0])):
        y = torch.randn(2, 2) * MASK
        both = (matched(model, y) if field == "MomentMatching" else rewarded(model))(x, t)
        for n in range(2):
            alone = matched(model, y[n : n + 1]) if field == "MomentMatching" else rewarded(model)
            torch.testing.assert_close(both[n : n + 1], alone(x[n : n + 1], t[n : n + 1]))


@pytest.mark.parametrize("field", FIELDS)
def test_networks_are_told_the_time_that_solvers_know(field: str) -> None:
    """Guidance intervals and conversions between paths read it without a synchronisation."""
    told: list[float | None] = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        told.append(known_time(t))
        return -x * t[:, None]  # whose derivative saves t

    for inference in (False, True):
        with torch.inference_mode(inference):
            told.clear()
            sample(Heun(FIELDS[field](velocity)), start(), torch.tensor([0.0, 0.5]))
            assert told == [0, 0.01, 0.5]


@pytest.mark.parametrize("shape", [(0, 2), (4,), (0,), (1, 2), (3, 1, 2, 2)])
def test_states_of_every_shape(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return x.sin() - x / 2

    for field in (
        MomentMatching(velocity, Linear(), lambda x: 2 * x, torch.ones(shape), 0.1),
        MomentMatching(
            velocity, Linear(), lambda x: x.flatten(1).sum(1) if x.ndim > 1 else x, torch.ones(shape[0]), 0.1
        ),
        Rewarded(velocity, Linear(), lambda x: x.flatten(1).sum(1) if x.ndim > 1 else x),
    ):
        for call in (CALLS["Heun"], CALLS["from 0"], CALLS["adaptive"], CALLS["solve_each"]):
            reached = call(field, x)
            assert reached.shape == shape
            assert reached.isfinite().all()


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("field", FIELDS)
def test_compiled_networks_and_compiled_fields_give_the_same(field: str) -> None:
    model, x, t = network(), start(), torch.full((6,), 0.4)
    with torch.no_grad():
        expected = FIELDS[field](model)(x, t)
        compiled = torch.compile(model, backend="aot_eager")
        torch.testing.assert_close(FIELDS[field](compiled)(x, t), expected)
        if field == "Rewarded":
            whole = torch.compile(rewarded(model), backend="eager")
            torch.testing.assert_close(whole(x, t), expected)
    torch.testing.assert_close(FIELDS[field](compiled)(x, t), expected)
    with torch.inference_mode():
        torch.testing.assert_close(FIELDS[field](compiled)(x.clone(), t.clone()), expected)


def test_samples_do_not_depend_on_the_batch() -> None:
    model, x = network().double(), start(torch.float64)
    y = torch.randn(6, 2, dtype=torch.float64) * MASK
    together = sample(Heun(matched(model, y)), x, TIMES)
    alone = [sample(Heun(matched(model, y[n : n + 1])), x[n : n + 1], TIMES) for n in range(6)]
    torch.testing.assert_close(together, torch.cat(alone))
