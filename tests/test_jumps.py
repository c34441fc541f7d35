"""Fields with jumps in time: solvers with error control or memory restart there."""

from functools import partial

import pytest
import torch
from torch import Tensor

from sitkit.interpolants import GVP, Linear
from sitkit.objectives import Matching
from sitkit.samplers import (
    Autoguidance,
    ClassifierFree,
    Conditional,
    Counted,
    Exponential,
    Field,
    Heun,
    adaptive,
    grids,
    log_likelihood,
    plan,
    reparametrise,
    sample,
    solve_each,
)
from sitkit.samplers.jumps import jumps_of, smooth_intervals
from worlds import doubles

LOW, HIGH = 0.3, 0.7


class Switched:
    """x' = rate(t) x with the rate -1, and 3 in the interval, ends included."""

    jumps = (LOW, HIGH)

    def __init__(self) -> None:
        self.asked: list[float] = []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked.extend(t.tolist())
        rate = torch.where((t >= LOW) & (t <= HIGH), 3.0, -1.0).to(x.dtype)
        return x * rate.reshape(-1, *[1] * (x.ndim - 1)) * torch.ones((), dtype=x.dtype, requires_grad=True)


EXACT = torch.exp(doubles(-LOW + 3 * (HIGH - LOW) - (1 - HIGH)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solve", [adaptive, solve_each])
def test_error_control_is_right_across_jumps(solve, dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    field, x = Switched(), torch.ones(3, 2, dtype=dtype)
    exact = EXACT.to(dtype) * x
    stopped = solve(field, x, 0, 1)
    torch.testing.assert_close(stopped, exact, rtol=3e-5, atol=0)
    torch.testing.assert_close(solve(field, x, 1, 0), x / EXACT.to(dtype), rtol=3e-5, atol=0)
    calls = len(field.asked)
    field.jumps = ()  # type: ignore[assignment]
    blind = solve(field, x, 0, 1)
    assert (blind - exact).abs().max() > 3 * (stopped - exact).abs().max()
    assert calls < 4 * len(field.asked)


def test_a_density_is_right_across_jumps() -> None:
    x = doubles(0.3, -0.8)[:, None]
    found = log_likelihood(Switched(), x)
    torch.testing.assert_close(found.latent, x / EXACT, rtol=3e-5, atol=0)
    exact = torch.distributions.Normal(0.0, float(EXACT)).log_prob(x)[:, 0]  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found.log_prob, exact, rtol=0, atol=1e-4)


def test_a_plan_stops_at_jumps_and_begins_anew() -> None:
    field = Switched()
    made = plan(field, Linear(), evaluations=40)
    assert {LOW, HIGH} <= set(made.times.tolist())
    x = doubles(1.0, -2.0)[:, None]
    reached = sample(made.solver, x, made.times)
    assert len(field.asked) == 2 * 40
    assert float((reached - EXACT * x).abs().max()) < 0.02
    field.jumps = ()  # type: ignore[assignment]
    blind = plan(field, Linear(), evaluations=40)
    assert float((sample(blind.solver, x, blind.times) - EXACT * x).abs().max()) > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_time_that_is_a_jump_but_for_rounding_is_one(dtype: torch.dtype) -> None:
    """float32 has no 0.3 and no 0.7, and the float64 linspace has 0.30000000000000004."""
    x = torch.ones(2, 2, dtype=dtype)
    for times in (torch.linspace(0, 1, 41), torch.linspace(0, 1, 41, dtype=torch.float64)):
        reached = sample(Exponential(Switched(), Linear()), x, times)
        torch.testing.assert_close(reached, EXACT.to(dtype) * x, rtol=0, atol=0.02)


def test_a_small_nfe_is_never_exceeded() -> None:
    for evaluations in (1, 2, 3):
        field = Counted(Switched())
        made = plan(field, Linear(), evaluations=evaluations)
        sample(made.solver, torch.ones(2, 2), made.times)
        assert field.calls == evaluations


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fields_are_asked_on_one_side_of_a_jump(dtype: torch.dtype) -> None:
    for t, s in ((0.0, 1.0), (1.0, 0.0)):
        parts = [*smooth_intervals(Switched(), t, s, dtype)]
        assert [(part.t, part.s) for part in parts] == [(t, 0.3 if t == 0 else 0.7), *[(p.t, p.s) for p in parts[1:]]]
        first, inner, last = sorted(parts, key=lambda part: part.low)
        rounded = torch.tensor([LOW, HIGH], dtype=dtype).tolist()
        assert first.low == 0.0
        assert first.high < rounded[0] < inner.low
        assert inner.high < rounded[1] < last.low
        assert last.high == 1.0


def test_a_grid_is_moved_onto_jumps_and_still_rises() -> None:
    times = grids.through(torch.linspace(0, 1, 6, dtype=torch.float64), Switched())
    torch.testing.assert_close(times, doubles(0, 0.3, 0.4, 0.7, 0.8, 1), rtol=0, atol=0.11)
    assert (times.diff() > 0).all()
    assert {LOW, HIGH} <= set(times.tolist())


def network(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return x * y[:, None]


def test_jump_times_of_guidance_pass_through_all_wrappers() -> None:
    y = torch.tensor([1.0, 2.0])
    guided = ClassifierFree(network, y, 0.0, 3.0, (LOW, HIGH))
    assert jumps_of(guided) == (LOW, HIGH)
    assert jumps_of(ClassifierFree(network, y, 0.0, 1.0, (LOW, HIGH))) == ()
    assert jumps_of(ClassifierFree(network, y, 0.0, 3.0)) == ()
    field = Matching(Linear()).field(guided)
    assert jumps_of(Counted(field)) == (LOW, HIGH)
    assert jumps_of(partial(Counted(field))) == (LOW, HIGH)
    assert jumps_of(Matching(Linear()).field(partial(partial(Counted(field))))) == (LOW, HIGH)
    plain = Conditional(network, y)
    assert jumps_of(Autoguidance(plain, plain, 2.0, (0.0, HIGH))) == (HIGH,)
    assert jumps_of(Autoguidance(field, plain, 2.0)) == (LOW, HIGH)


def test_an_adaptive_solver_leaves_guidance_no_larger_an_error_than_a_fine_grid() -> None:
    y = torch.tensor([1.0, 2.0], dtype=torch.float64)
    guided = ClassifierFree(network, y, 0.0, 3.0, (LOW, HIGH))
    x = torch.ones(2, 2, dtype=torch.float64)
    exact = torch.exp(y * (0.6 + 3 * 0.4))[:, None] * x
    for solve in (adaptive, solve_each):
        torch.testing.assert_close(solve(guided, x, 0, 1), exact, rtol=1e-4, atol=0)
    fine = sample(Heun(guided), x, torch.linspace(0, 1, 1001, dtype=torch.float64))
    torch.testing.assert_close(fine, exact, rtol=1e-2, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solve", [adaptive, solve_each])
def test_a_reparametrised_field_jumps_exactly_at_its_stated_times(solve, dtype: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    """A time next to a jump is matched with one on the same side in spite of rounding."""
    field: Field = Switched()
    back = reparametrise(reparametrise(field, Linear(), GVP()), GVP(), Linear())
    x = torch.ones(2, 2, dtype=dtype)
    torch.testing.assert_close(solve(back, x, 0.1, 0.9), solve(field, x, 0.1, 0.9), rtol=2e-5, atol=0)
    said, own = (torch.tensor(jumps_of(one), dtype=dtype) for one in (back, field))
    for way in (0, 1, -1):
        t, exact = (torch.nextafter(times, times + way) for times in (said, own))
        torch.testing.assert_close(back(x, t), field(x, exact), rtol=1e-4, atol=0)
