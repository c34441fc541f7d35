"""Laws of guidance."""

from collections.abc import Callable
from functools import partial

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
from worlds import PATHS, Gaussian


def network(x: Tensor, t: Tensor, /, *, y: Tensor) -> Tensor:
    """Stand in for a conditional network: each label its own field."""
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


def test_guidance_acts_in_its_interval_only_and_costs_two_rows_there() -> None:
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


def test_guidance_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="low <= high"):
        ClassifierFree(network, torch.arange(3), 9, 2.0, interval=(0.7, 0.2))
    with pytest.raises(ValueError, match="3 labels, and x has 2 rows"):
        ClassifierFree(network, torch.arange(3), 9, 2.0)(torch.zeros(2, 2), torch.zeros(2))


def test_guidance_acts_at_all_times_unless_told_and_at_one_time_if_told() -> None:
    x, y, t = torch.randn(3, 2), torch.arange(3), torch.tensor([0.0, 0.5, 1.0])
    mixture = network(x, t, y=torch.full((3,), 9)) * -1 + 2 * network(x, t, y=y)
    torch.testing.assert_close(ClassifierFree(network, y, 9, 2.0)(x, t), mixture)
    once = ClassifierFree(network, y, 9, 2.0, interval=(0.5, 0.5))(x, t)
    torch.testing.assert_close(once[1], mixture[1])
    torch.testing.assert_close(once[::2], network(x, t, y=y)[::2])


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
    assert (expected.mean() - 4).abs() < 0.1
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
