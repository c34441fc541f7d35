"""Gradients through solvers by the start, the network and the path, with activation checkpointing, or none at all."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import solvers
from sitkit.interpolants import Interpolant, Linear
from sitkit.samplers import (
    SDE,
    Counted,
    Field,
    Sigma,
    adaptive,
    grids,
    log_likelihood,
    sample,
    sdeint,
    solve_each,
    trajectory,
)
from solvers import NOISE, SOLVERS, TIMES, network, start

FIXED_COEFFICIENTS = ("Exponential", "Exponential, order 1", "Exponential, KL")
"""Solvers without gradients by times, path and w."""


class Power(Interpolant):
    """A path with a parameter."""

    def __init__(self, power: Tensor):
        self.power = power

    def alpha(self, t: Tensor) -> Tensor:
        return t**self.power

    def sigma(self, t: Tensor) -> Tensor:
        return 1 - t**self.power


@pytest.mark.parametrize("name", SOLVERS)
def test_gradients_by_the_start_and_the_network_are_those_of_finite_differences(name: str) -> None:
    model, x = network().double(), start(torch.float64)
    weights = [*model.parameters()]
    assert len(weights) == 10

    def loss(x: Tensor) -> Tensor:
        return trajectory(SOLVERS[name](model, NOISE), x, TIMES)[-1].square().sum()

    gradients = torch.autograd.grad(loss(x.requires_grad_()), [x, *weights])
    generator, h = torch.Generator().manual_seed(2), 1e-6
    for which in ([x], weights):
        directions = [torch.randn(each.shape, generator=generator, dtype=each.dtype) for each in which]
        ends = []
        with torch.no_grad():
            for shift in (h, -2 * h, h):  # ahead, behind, and back to where it was
                for tensor, direction in zip(which, directions, strict=True):
                    tensor.add_(shift * direction)
                ends.append(loss(x))
        slope = sum((g * d).sum() for g, d in zip(gradients[: len(which)], directions, strict=True))
        torch.testing.assert_close(slope, (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-6)
        gradients = gradients[len(which) :]


@pytest.mark.parametrize("name", SOLVERS)
def test_gradients_by_the_path_are_those_of_finite_differences_or_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = network().double(), start(torch.float64)

    def loss(power: Tensor) -> Tensor:
        monkeypatch.setattr(solvers, "PATH", Power(power))
        return trajectory(SOLVERS[name](model, lambda x, t, s: torch.ones_like(x)), x, TIMES.double())[-1].sum()

    power, h = torch.tensor(1.3, dtype=torch.float64, requires_grad=True), 1e-6
    if name in FIXED_COEFFICIENTS:
        with pytest.raises(ValueError, match="no gradient by the path"):
            loss(power)
        return
    (gradient,) = torch.autograd.grad(loss(power), power, allow_unused=True)
    numeric = (loss(power.detach() + h) - loss(power.detach() - h)).detach() / (2 * h)
    if gradient is None:
        assert name in ("Euler", "Midpoint", "Heun", "RK4")  # of the velocity alone
        gradient = torch.zeros_like(numeric)
    torch.testing.assert_close(gradient, numeric, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SOLVERS)
def test_activation_checkpointing_gives_equal_gradients(name: str) -> None:
    model, x = network(), start().requires_grad_()
    counted = Counted(model)

    def gradients(velocity: Field) -> tuple[Tensor, ...]:
        end = trajectory(SOLVERS[name](velocity, NOISE), x, TIMES)[-1]
        return torch.autograd.grad(end.square().sum(), [x, *model.parameters()])

    expected = gradients(counted)
    once, counted.calls = counted.calls, 0
    found = gradients(lambda x, t: checkpoint(counted, x, t, use_reentrant=False))
    assert counted.calls == 2 * once or name == "Tweedie"  # whose earlier steps have no influence
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


WITHOUT_GRADIENTS: dict[Callable[..., object], Callable[[Field, Tensor], Tensor]] = {
    sample: lambda v, x: sample(SOLVERS["Heun"](v, NOISE), x, TIMES),
    adaptive: lambda v, x: adaptive(v, x, 0.05, 0.95),
    solve_each: lambda v, x: solve_each(v, x, 0.05, 0.95),
    log_likelihood: lambda v, x: log_likelihood(v, x).log_prob,
    sdeint: lambda v, x: sdeint(SDE(v, Linear(), Sigma(Linear())), x, TIMES),
    grids.measured: lambda v, x: grids.measured(Linear(), 5, velocity=v, x=x, rounds=1),
}


@pytest.mark.parametrize("call", WITHOUT_GRADIENTS, ids=lambda call: call.__name__)
def test_functions_without_gradients_say_so(call: Callable[..., object]) -> None:
    model, x = network(), start().requires_grad_()
    assert not WITHOUT_GRADIENTS[call](model, x).requires_grad
    assert "No gradients are recorded" in " ".join((inspect.getdoc(call) or "").split())


@pytest.mark.parametrize("name", SOLVERS)
def test_yielded_states_are_not_changed_later(name: str) -> None:
    with torch.no_grad():
        pairs = [(state, state.clone()) for state in SOLVERS[name](network(), NOISE)(start(), TIMES)]
    assert all(torch.equal(state, copy) for state, copy in pairs)


@pytest.mark.parametrize("name", SOLVERS)
def test_gradients_through_edits_of_states_are_those_of_finite_differences(name: str) -> None:
    model, x = network().double(), start(torch.float64)

    def loss(x: Tensor) -> Tensor:
        for number, state in enumerate(SOLVERS[name](model, NOISE)(x, TIMES)):
            if number in (2, 3, 5):
                state[:, :1] = state[:, 1:] / 2
                state.sin_()
        return state.square().sum()

    direction, h = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(6, 2), 1e-6
    (gradient,) = torch.autograd.grad(loss(x.requires_grad_()), x)
    numeric = (loss(x + h * direction) - loss(x - h * direction)).detach() / (2 * h)
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in SOLVERS if name not in ("Exponential", "Exponential, KL")])
def test_a_solver_that_is_stopped_and_started_again_gives_the_same(name: str) -> None:
    """Gradients of the last steps only rely on it. Multistep solvers start again at a lower order."""
    solver, x = SOLVERS[name](network(), NOISE), start()
    middle = sample(solver, x, TIMES[:4])
    assert torch.equal(sample(solver, middle, TIMES[3:]), sample(solver, x, TIMES))
