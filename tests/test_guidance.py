"""Laws of guidance."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sitkit.interpolants import Interpolant, Linear
from sitkit.samplers import (
    KL,
    SDE,
    Autoguidance,
    ClassifierFree,
    Conditional,
    Counted,
    EulerMaruyama,
    Heun,
    Keyed,
    Plan,
    Sigma,
    adaptive,
    plan,
    sample,
    solve_each,
)
from sitkit.samplers.known_time import with_known_time
from worlds import PATHS, Gaussian


def network(x: Tensor, t: Tensor, /, *, y: Tensor) -> Tensor:
    """Stand in for a conditional network with a field for each label."""
    return x * (1 + y.reshape(-1, *[1] * (x.ndim - 1))) + t.reshape(-1, *[1] * (x.ndim - 1))


@given(st.floats(-2, 6), st.integers(0, 99), st.booleans())
def test_guidance_is_the_mixture_of_the_two_fields(scale, seed, own_null) -> None:  # type: ignore[no-untyped-def]
    x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    t, y = torch.full((4,), 0.3, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    null = torch.full((4,), 9) if own_null else 9
    conditional, unconditional = network(x, t, y=y), network(x, t, y=torch.full((4,), 9))
    mixture = unconditional + scale * (conditional - unconditional)
    torch.testing.assert_close(ClassifierFree(network, y, null, scale)(x, t), mixture)
    first = ClassifierFree(network, y, null, scale, channels=1)(x, t)
    torch.testing.assert_close(first[:, :1], mixture[:, :1])
    torch.testing.assert_close(first[:, 1:], conditional[:, 1:])


def test_guidance_acts_only_in_its_interval_and_costs_two_network_rows_there() -> None:
    x, y = torch.randn(5, 2), torch.arange(5)
    t = torch.tensor([0.1, 0.2, 0.5, 0.8, 0.9])
    counted = Counted(network)
    guided = ClassifierFree(counted, y, 9, 3.0, interval=(0.2, 0.8))(x, t)
    assert (counted.calls, counted.rows) == (1, 5 + 3)
    everywhere = ClassifierFree(network, y, 9, 3.0)(x, t)
    inside = (t >= 0.2) & (t <= 0.8)
    torch.testing.assert_close(guided[inside], everywhere[inside])
    assert torch.equal(guided[~inside], network(x, t, y=y)[~inside])
    nulls = torch.tensor([9, 8, 7, 6, 5])
    own = ClassifierFree(network, y, nulls, 3.0, interval=(0.2, 0.8))(x, t)
    torch.testing.assert_close(own[inside], ClassifierFree(network, y, nulls, 3.0)(x, t)[inside])


def test_guidance_of_scale_one_is_the_conditional_field_at_its_cost() -> None:
    x, t, y = torch.randn(5, 2), torch.full((5,), 0.5), torch.arange(5)
    counted = Counted(network)
    assert torch.equal(ClassifierFree(counted, y, 9, 1.0)(x, t), network(x, t, y=y))
    assert counted.rows == 5


def test_guidance_refuses_bad_arguments() -> None:
    with pytest.raises(ValueError, match="low <= high"):
        ClassifierFree(network, torch.arange(3), 9, 2.0, interval=(0.7, 0.2))
    with pytest.raises(ValueError, match="3 labels, and x has 2 rows"):
        ClassifierFree(network, torch.arange(3), 9, 2.0)(torch.zeros(2, 2), torch.zeros(2))
    y, nan = torch.arange(3), float("nan")
    for scales in (torch.ones(2), torch.ones(1)):
        for interval in ((0.0, 1.0), (0.0, 0.5)):
            for field in (
                ClassifierFree(network, y, 9, scales, interval),
                Autoguidance(Conditional(network, y), Conditional(network, y), scales, interval),
            ):
                with pytest.raises(ValueError, match="scales, and x has 3 rows"):
                    field(torch.zeros(3, 2), torch.zeros(3))
    for scale in (nan, float("inf")):
        with pytest.raises(ValueError, match="scale must be finite"):
            ClassifierFree(network, y, 9, scale)
        with pytest.raises(ValueError, match="scale must be finite"):
            Autoguidance(network, network, scale)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"scale must be a number or of shape \(B,\)"):
        ClassifierFree(network, y, 9, torch.ones(3, 1))
    with pytest.raises(ValueError, match="low <= high"):
        ClassifierFree(network, y, 9, 2.0, (nan, 1.0))
    with pytest.raises(ValueError, match="channels must be a whole number, at least 1"):
        ClassifierFree(network, y, 9, 2.0, channels=0)
    for labels, null, said in (
        (
            y,
            torch.zeros(2).long(),
            r"condition of shape \(3,\) must have that shape or the shape of one row, got \(2,\)",
        ),
        ({"a": y}, {"b": y}, "dicts with the keys a, got a dict with the keys b"),
        ((y, y), (9,), "a sequence of 2 conditions, got tuple"),
        (y, "none", "a number or a tensor"),
        (y, None, "a number or a tensor"),
    ):
        with pytest.raises(ValueError, match=said):
            ClassifierFree(network, labels, null, 2.0)


def test_guidance_acts_at_all_times_by_default_and_at_one_time_on_request() -> None:
    x, y, t = torch.randn(3, 2), torch.arange(3), torch.tensor([0.0, 0.5, 1.0])
    mixture = network(x, t, y=torch.full((3,), 9)) * -1 + 2 * network(x, t, y=y)
    torch.testing.assert_close(ClassifierFree(network, y, 9, 2.0)(x, t), mixture)
    once = ClassifierFree(network, y, 9, 2.0, interval=(0.5, 0.5))(x, t)
    torch.testing.assert_close(once[1], mixture[1])
    torch.testing.assert_close(once[::2], network(x, t, y=y)[::2])


class Text(NamedTuple):
    """A condition of two tensors, one with a row of tokens for each sample."""

    tokens: Tensor
    width: Tensor


def prompted(x: Tensor, t: Tensor, /, *, y: Any) -> Tensor:
    """Stand in for a network with nested conditions."""
    text, (label, size) = y["text"], y["more"]
    factor = text.tokens.sum((1, 2)) + text.width + label + size
    return x * factor.reshape(-1, *[1] * (x.ndim - 1)) + t.reshape(-1, *[1] * (x.ndim - 1))  # type: ignore[no-any-return]


def prompts(count: int) -> dict[str, Any]:
    number = torch.arange(count)
    tokens = number[:, None, None] + torch.rand(count, 3, 2, generator=torch.Generator().manual_seed(0))
    return {"text": Text(tokens, number / 7), "more": (number, 0.5)}


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.2, 0.8)])
@pytest.mark.parametrize("shape", [(), (4,), (3, 2, 2)])
def test_conditions_may_be_nested_and_scales_of_each_row(interval: tuple[float, float], shape: tuple[int, ...]) -> None:
    x, t, scale = torch.randn(4, *shape), torch.tensor([0.1, 0.2, 0.5, 0.9]), torch.tensor([2.0, 3.0, -1.0, 1.0])
    inside = ((t >= interval[0]) & (t <= interval[1])).reshape(-1, *[1] * len(shape))
    y, null_row = prompts(4), {"text": Text(torch.full((3, 2), -1.0), torch.tensor(2.0)), "more": (9, 0.5)}
    null = {"text": Text(torch.full((4, 3, 2), -1.0), torch.full((4,), 2.0)), "more": (torch.full((4,), 9), 0.5)}
    conditional, unconditional = prompted(x, t, y=y), prompted(x, t, y=null)
    column = scale.reshape(inside.shape)
    expected = torch.where(inside, unconditional + column * (conditional - unconditional), conditional)
    weak = Conditional(prompted, null)
    for field in (
        ClassifierFree(prompted, y, null, scale, interval),
        ClassifierFree(prompted, y, null_row, scale, interval),
        Autoguidance(Conditional(prompted, y), weak, scale, interval),
        Autoguidance(Conditional(prompted, y), partial(prompted, y=null), scale, interval),
    ):
        torch.testing.assert_close(field(x, t), expected)
        index = torch.tensor([3, 1])
        if hasattr(field, "rows"):
            torch.testing.assert_close(field.rows(index)(x[index], t[index]), expected[index])
    torch.testing.assert_close(Conditional(prompted, y)(x, t), conditional)
    with pytest.raises(ValueError, match=r"4 labels in a condition of shape \(4, 3, 2\), and x has 2 rows"):
        ClassifierFree(prompted, y, null, 2.0)(x[:2], t[:2])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # of torch 2.13's jvp, by itself
def test_guidance_compiles_whole_and_is_traced_by_transforms() -> None:
    x, y, scale = torch.randn(4, 3), torch.arange(4), torch.tensor([2.0, 3.0, -1.0, 1.0])
    t = torch.tensor([0.1, 0.2, 0.5, 0.9])
    for interval in ((0.0, 1.0), (0.2, 0.8)):
        for field in (
            ClassifierFree(network, y, 9, 3.0, interval, channels=2),
            ClassifierFree(network, y, 9, scale, interval),
            ClassifierFree(network, y, 9, 1.0, interval),
            Autoguidance(Conditional(network, y), Conditional(network, y + 1), 3.0, interval),
        ):
            torch.compiler.reset()
            compiled = torch.compile(field, fullgraph=True, backend="eager")
            torch.testing.assert_close(compiled(x, t), field(x, t))
            by_time = torch.func.vmap(lambda time, field=field: field(x, time.expand(4)))(t)
            torch.testing.assert_close(by_time, torch.stack([field(x, time.expand(4)) for time in t]))
            value, change = torch.func.jvp(lambda x, field=field: field(x, t), (x,), (x,))  # type: ignore[misc]
            torch.testing.assert_close(value, field(x, t))
            torch.testing.assert_close(change, field(x, t) - field(0 * x, t), rtol=1e-4, atol=1e-4)
            with torch.inference_mode():
                assert torch.equal(field(x, t), value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_outputs_of_any_precision_are_guided(dtype: torch.dtype) -> None:
    x, t, y = torch.randn(4, 3), torch.full((4,), 0.5), torch.arange(4)

    def rounded(x: Tensor, t: Tensor, /, *, y: Tensor) -> Tensor:
        return network(x, t, y=y).to(dtype)

    exact = ClassifierFree(network, y, 9, 3.0)(x, t)
    for scale in (3.0, torch.full((4,), 3.0), torch.tensor(3.0)):
        for field in (
            ClassifierFree(rounded, y, 9, scale),
            Autoguidance(Conditional(rounded, y), Conditional(network, torch.full((4,), 9)), scale),
            Autoguidance(Conditional(rounded, y), Conditional(rounded, torch.full((4,), 9)), scale, (0.1, 0.9)),
        ):
            guided = field(x, t)
            assert guided.dtype == dtype
            torch.testing.assert_close(guided.float(), exact, rtol=0, atol=0.3 if dtype == torch.bfloat16 else 0.05)
    weak = Autoguidance(Conditional(network, y), Conditional(rounded, y), 2.0)
    assert weak(x, t).dtype == torch.float32


def test_times_that_the_host_knows_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(4, 2), torch.arange(4)
    fields = [
        ClassifierFree(network, y, 9, 3.0, (0.2, 0.8)),
        Autoguidance(Conditional(network, y), Conditional(network, y + 1), 3.0, (0.2, 0.8)),
    ]
    times = (0.1, 0.2, 0.2 - 1e-12, 0.5, 0.8, 0.80001)  # the third is 0.2, as a time of the device
    expected = [[field(x, torch.full((4,), time)) for time in times] for field in fields]  # type: ignore[operator]

    def refuse(*_: object) -> None:
        raise AssertionError("a device was asked for values")

    for name in ("nonzero", "equal"):
        monkeypatch.setattr(torch, name, refuse)
    for name in ("__bool__", "item", "tolist", "__float__"):
        plain = getattr(Tensor, name)
        monkeypatch.setattr(Tensor, name, lambda self, plain=plain: refuse() if self.ndim else plain(self))
    found = [[field(x, with_known_time(torch.full((4,), time), time)) for time in times] for field in fields]  # type: ignore[operator]
    everywhere = ClassifierFree(network, y, 9, 3.0)(x, torch.full((4,), 0.3))
    monkeypatch.undo()
    for each, other in zip(expected, found, strict=True):
        for one, two in zip(each, other, strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=0)
    torch.testing.assert_close(everywhere, ClassifierFree(network, y, 9, 3.0, (0.2, 0.8))(x, torch.full((4,), 0.3)))


def test_guided_fields_say_where_they_jump() -> None:
    y = torch.arange(3)
    for scale, interval, jumps in (
        (2.0, (0.0, 1.0), ()),
        (2.0, (0.2, 0.8), (0.2, 0.8)),
        (2.0, (0.2, 1.0), (0.2,)),
        (1.0, (0.2, 0.8), ()),
        (torch.ones(3), (0.5, 0.5), (0.5,)),
    ):
        assert ClassifierFree(network, y, 9, scale, interval).jumps == jumps
        assert Autoguidance(Conditional(network, y), Conditional(network, y), scale, interval).jumps == jumps
    inner = Autoguidance(Conditional(network, y), Conditional(network, y), 2.0, (0.3, 1.0))
    assert Autoguidance(inner, inner, 2.0, (0.2, 0.8)).jumps == (0.2, 0.3, 0.8)


def test_batches_may_be_empty_and_states_scalar() -> None:
    for count in (0, 1, 3):
        for shape in ((), (2,)):
            x, t, y = torch.randn(count, *shape), torch.full((count,), 0.5), torch.arange(count)
            for interval in ((0.0, 1.0), (0.2, 0.8), (0.6, 0.8)):
                for field in (
                    ClassifierFree(network, y, 9, 2.0, interval),
                    Autoguidance(Conditional(network, y), Conditional(network, y + 1), 2.0, interval),
                ):
                    assert field(x, t).shape == x.shape


def test_conditional_is_a_closure_that_can_be_restricted() -> None:
    x, t, y = torch.randn(5, 3, 2), torch.rand(5), torch.arange(5)
    field = Conditional(network, y)
    assert torch.equal(field(x, t), partial(network, y=y)(x, t))
    index = torch.tensor([3, 1])
    assert torch.equal(field.rows(index)(x[index], t[index]), field(x, t)[index])
    alike = Conditional(lambda x, t: x + t[:, None, None])
    assert alike.rows(index) is alike
    assert torch.equal(alike(x, t), x + t[:, None, None])
    with pytest.raises(ValueError, match="5 labels, and x has 2 rows"):
        field(x[:2], t[:2])


@pytest.mark.parametrize("null", [9, torch.tensor(9), torch.tensor([9, 8, 7, 6, 5])], ids=["one", "tensor", "own"])
def test_a_guided_field_is_restricted_with_its_labels(null: int | Tensor) -> None:
    x, t, y = torch.randn(5, 3, 2), torch.linspace(0, 1, 5), torch.arange(5)
    index = torch.tensor([3, 1, 4])
    for field in (
        ClassifierFree(network, y, null, 3.0, interval=(0.2, 0.8), channels=1),
        Autoguidance(Conditional(network, y), Conditional(network, y + 2), 3.0, interval=(0.2, 0.8)),
    ):
        torch.testing.assert_close(field.rows(index)(x[index], t[index]), field(x, t)[index])


@given(st.floats(-2, 6), st.integers(0, 99))
def test_autoguidance_is_the_mixture_of_the_two_fields(scale, seed) -> None:  # type: ignore[no-untyped-def]
    x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    t = torch.full((4,), 0.3, dtype=torch.float64)
    guided = Autoguidance(lambda x, t: torch.cos(3 * x), lambda x, t: torch.cos(2 * x), scale)(x, t)
    torch.testing.assert_close(guided, scale * torch.cos(3 * x) + (1 - scale) * torch.cos(2 * x))


def test_the_weak_field_is_asked_inside_the_interval_only() -> None:
    x, y = torch.randn(5, 2), torch.arange(5)
    t = torch.tensor([0.1, 0.2, 0.5, 0.8, 0.9])
    inside = (t >= 0.2) & (t <= 0.8)
    strong, weak = Counted(network), Counted(network)
    strong_field, weak_field = Conditional(strong, y), Conditional(weak, y + 2)
    expected = torch.where(inside[:, None], 3 * strong_field(x, t) - 2 * weak_field(x, t), strong_field(x, t))
    for worse, cost in ((weak_field, 3), (partial(weak, y=y + 2), 5)):
        strong.calls = strong.rows = weak.calls = weak.rows = 0
        torch.testing.assert_close(Autoguidance(strong_field, worse, 3.0, (0.2, 0.8))(x, t), expected)
        assert (strong.calls, strong.rows, weak.calls, weak.rows) == (1, 5, 1, cost)
    weak.calls = 0
    for scale, interval in ((3.0, (0.91, 1.0)), (1.0, (0.0, 1.0))):
        assert torch.equal(Autoguidance(strong_field, weak_field, scale, interval)(x, t), strong_field(x, t))
    assert weak.calls == 0
    with pytest.raises(ValueError, match="low <= high"):
        Autoguidance(strong_field, weak_field, 3.0, (0.7, 0.2))


def test_autoguidance_can_be_restricted_if_both_its_fields_can() -> None:
    can, cannot = Conditional(network, torch.arange(3)), partial(network, y=torch.arange(3))
    assert callable(Autoguidance(can, can, 2.0).rows)
    for strong, weak in ((can, cannot), (cannot, can), (Counted(can), can)):
        assert not hasattr(Autoguidance(strong, weak, 2.0), "rows")


def follow(planned: Plan, x: Tensor) -> Tensor:
    """Return the samples of a plan."""
    return sample(planned.solver, x, planned.times)


TIMES = torch.linspace(0, 0.9, 19, dtype=torch.float64)
CALLERS: dict[str, Callable[[Callable[[Tensor, Tensor], Tensor], Tensor], Tensor]] = {
    "heun": lambda field, x: sample(Heun(field), x, TIMES),
    "sde": lambda field, x: sample(
        EulerMaruyama(SDE(field, Linear(), Sigma(Linear())), Keyed(0, torch.arange(6))), x, TIMES
    ),
    "plan": lambda field, x: follow(plan(field, Linear(), evaluations=19, interval=(0, 0.9)), x),
    "plan, sde": lambda field, x: follow(
        plan(field, Linear(), w=KL(Linear()), evaluations=19, noise=Keyed(0, torch.arange(6))), x
    ),
    "adaptive": lambda field, x: adaptive(field, x, 0.0, 0.9),
    "each": lambda field, x: solve_each(field, x, 0.0, 0.9),
}


@pytest.mark.parametrize("caller", CALLERS)
def test_solvers_pay_for_guidance_in_its_interval_only(caller: str) -> None:
    x, y = torch.randn(6, 2, dtype=torch.float64), torch.tensor([0, 3, 1, 0, 2, 9])
    asked: list[float] = []

    class Times(Counted):
        def __call__(self, x: Tensor, t: Tensor, /, **conditions: Tensor) -> Tensor:
            asked.extend(t.tolist())
            return super().__call__(x, t, **conditions)

    better, worse = Times(network), Counted(network)
    reached = CALLERS[caller](Autoguidance(Conditional(better, y), Conditional(worse, y + 1), 2.0, (0.2, 0.45)), x)
    inside = sum(0.2 <= t <= 0.45 for t in asked)
    assert 0 < inside < better.rows
    assert worse.rows == inside
    assert better.rows == len(asked)
    rows, better.rows = better.rows, 0
    asked.clear()
    free = CALLERS[caller](ClassifierFree(better, y, y + 1, 2.0, (0.2, 0.45)), x)
    assert sum(0.2 <= t <= 0.45 for t in asked) == 2 * inside
    assert better.rows == rows + inside
    torch.testing.assert_close(free, reached)


@pytest.mark.parametrize("path", PATHS[:3], ids=repr)
@pytest.mark.parametrize("w", [None, Sigma, KL], ids=["ode", "sigma", "kl"])
def test_a_plan_reaches_the_gaussian_that_guidance_asks_for(path: Interpolant, w: type[Sigma | KL] | None) -> None:
    """Guided from N(1, .3^2) towards N(2, .3^2) by a scale of 3, points go where those of N(4, .3^2) go."""
    means = torch.tensor([2.0, 1.0], dtype=torch.float64)
    fields = [Gaussian(mean.item(), 0.3).velocity(path) for mean in means]

    def conditional(x: Tensor, t: Tensor, /, *, y: Tensor) -> Tensor:
        return torch.where(y[:, None] == 0, fields[0](x, t), fields[1](x, t))

    x, y = torch.randn(64, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.zeros(64).long()
    planned = partial(plan, path=path, w=w(path) if w else None, evaluations=12, noise=Keyed(0, torch.arange(64)))
    expected = follow(planned(Gaussian(4.0, 0.3).velocity(path)), x)
    assert (expected.mean() - 4).abs() < 0.15  # four standard errors
    network = Counted(conditional)
    for guided in (
        ClassifierFree(network, y, 1, 3.0),
        Autoguidance(Conditional(network, y), Conditional(network, y + 1), 3.0),
    ):
        network.calls = network.rows = 0
        torch.testing.assert_close(follow(planned(guided), x), expected, rtol=0, atol=1e-10)
        assert network.rows == 2 * 12 * 64
        assert network.calls == (12 if isinstance(guided, ClassifierFree) else 24)


def test_samples_of_a_guided_field_do_not_depend_on_their_batch_mates() -> None:
    x, y = torch.randn(6, 2, dtype=torch.float64), torch.tensor([0, 3, 1, 0, 2, 9])

    def reached(rows: slice) -> Tensor:
        return solve_each(ClassifierFree(network, y[rows], y[rows] + 1, 2.0, (0.2, 0.45)), x[rows], 0.0, 0.9)

    for i in range(6):
        torch.testing.assert_close(reached(slice(i, i + 1))[0], reached(slice(6))[i], rtol=0, atol=1e-11)
