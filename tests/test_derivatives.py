"""Derivatives of a solver's result by times and by w: correct, or refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sitkit.interpolants import GVP, Linear
from sitkit.samplers import (
    SDE,
    Diffusion,
    EulerMaruyama,
    Exponential,
    ExponentialEuler,
    Field,
    Heun,
    Mean,
    NoiseSource,
    Solver,
    StochasticHeun,
    reparametrise,
    sample,
)
from solvers import SOLVERS, TIMES, WORLD, network, start
from worlds import doubles

MULTISTEP = ["Exponential", "Exponential, order 1", "Exponential, KL"]
ONE_STEP = [name for name in SOLVERS if name not in MULTISTEP]
AT_ENDS = ["Euler", "Midpoint", "Heun", "DDIM", "ExponentialEuler", "Ancestral", "EulerMaruyama"]


@pytest.mark.parametrize("name", ONE_STEP)
def test_gradients_by_times_and_w_are_those_of_finite_differences(name: str) -> None:
    model, x = network().double(), start(torch.float64)
    times = TIMES.double()

    def reached(times: Tensor) -> Tensor:
        return [*SOLVERS[name](model, lambda x, t, s: torch.ones_like(x))(x, times)][-1].sum()

    leaf = times.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(reached(leaf), leaf)
    h = 1e-6
    numeric = torch.stack([(reached(times + h * e) - reached(times - h * e)) / (2 * h) for e in torch.eye(7).double()])
    torch.testing.assert_close(gradient, numeric.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", [Linear(), GVP()], ids=repr)
@pytest.mark.parametrize(
    "name", ["Euler", "Midpoint", "Heun", "DDIM", "ExponentialEuler", "Ancestral", "EulerMaruyama"]
)
def test_gradients_by_times_are_right_at_the_ends_of_a_path(
    name: str, path: Linear, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where alpha or sigma is 0, the branch that is not taken may give NaN."""
    monkeypatch.setattr("solvers.PATH", path)
    solver = SOLVERS[name](WORLD.velocity(path), lambda x, t, s: torch.ones_like(x))
    x, times = start(torch.float64), torch.linspace(0, 1, 5, dtype=torch.float64)

    def reached(times: Tensor) -> Tensor:
        return [*solver(x, times)][-1].sum()

    leaf = times.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(reached(leaf), leaf)
    h, inward = 1e-6, doubles(1, 1, 1, 1, -1)  # no time outside of [0, 1] is asked for
    unit = torch.eye(5).double() * inward
    sides = torch.stack([4 * reached(times + h * e) - reached(times + 2 * h * e) - 3 * reached(times) for e in unit])
    torch.testing.assert_close(gradient, inward * sides.detach() / (2 * h), rtol=1e-4, atol=1e-4)


OF_W: dict[str, Callable[[Field, Diffusion, NoiseSource], Solver]] = {
    "EulerMaruyama": lambda v, w, noise: EulerMaruyama(SDE(v, Linear(), w), noise),
    "StochasticHeun": lambda v, w, noise: StochasticHeun(SDE(v, Linear(), w), noise),
    "ExponentialEuler": lambda v, w, noise: ExponentialEuler(v, Linear(), w, noise=noise),
    "Mean": lambda v, w, noise: Mean(SDE(v, Linear(), w)),
}


@pytest.mark.parametrize("name", OF_W)
def test_a_learnt_w_may_be_zero_at_an_end(name: str) -> None:
    model, x, times = network().double(), start(torch.float64), torch.linspace(0, 0.9, 6, dtype=torch.float64)

    def reached(scale: Tensor) -> Tensor:
        solver = OF_W[name](model, lambda t: scale * t, lambda x, t, s: torch.ones_like(x))
        return [*solver(x, times)][-1].sum()

    scale, h = doubles(0.7)[0].requires_grad_(), 1e-6
    (gradient,) = torch.autograd.grad(reached(scale), scale)
    numeric = (reached(scale + h) - reached(scale - h)) / (2 * h)
    torch.testing.assert_close(gradient, numeric.detach(), rtol=1e-6, atol=1e-6)
    scales = doubles(0.7, 0.2)
    torch.testing.assert_close(torch.func.vmap(reached)(scales), torch.stack([reached(one) for one in scales]))


@pytest.mark.parametrize("name", ONE_STEP)
def test_the_loop_can_be_vmapped_over_its_times(name: str) -> None:
    solver, x = SOLVERS[name](network().double(), lambda x, t, s: torch.ones_like(x)), start(torch.float64)
    grids_of = torch.stack([TIMES.double(), TIMES.double() ** 2])
    expected = torch.stack([[*solver(x, times)][-1] for times in grids_of])
    torch.testing.assert_close(torch.func.vmap(lambda times: [*solver(x, times)][-1])(grids_of), expected)


@pytest.mark.filterwarnings(r"ignore:.*torch\.jit\.script")  # of torch's own forward mode, on its first call
def test_exponential_refuses_transforms_of_its_coefficients() -> None:
    """An earlier version silently returned the derivative of the velocity alone in forward mode."""
    model, x, one = network(), start(), torch.ones(())
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "the times": lambda scale: [*Exponential(model, Linear())(x, scale * TIMES)][-1],
        "w": lambda scale: [*Exponential(model, Linear(), lambda t: scale * t)(x, TIMES)][-1],
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"no gradient by {name}"):
            torch.func.jvp(call, (one,), (one,))
        with pytest.raises(ValueError, match=f"cannot be vmapped over {name}"):
            torch.func.vmap(call)(torch.ones(2))


@pytest.mark.filterwarnings(r"ignore:.*torch\.jit\.script")  # of torch's own forward mode, on its first call
def test_a_field_read_along_another_path_has_no_derivative_by_its_times() -> None:
    """Times are matched by bisection; an earlier version took the derivative of that as zero."""
    field, x = reparametrise(network(), Linear(), GVP()), start()
    with pytest.raises(ValueError, match="no derivative by its times"):
        torch.func.jvp(lambda scale: [*Heun(field)(x, scale * TIMES)][-1], (torch.ones(()),), (torch.ones(()),))
    with pytest.raises(ValueError, match="no derivative by its times"):
        [*Heun(field)(x, TIMES.clone().requires_grad_())]
    expected = [*Heun(field)(x, TIMES)][-1]
    assert torch.equal(sample(Heun(field), x, TIMES.clone().requires_grad_()), expected)
    by_state = torch.func.jvp(lambda x: [*Heun(field)(x, TIMES)][-1].sum(), (x,), (torch.ones_like(x),))[1]
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad([*Heun(field)(leaf, TIMES)][-1].sum(), leaf)
    torch.testing.assert_close(by_state, gradient.sum(), rtol=1e-4, atol=1e-4)


def test_exponential_refuses_gradients_that_it_has_not() -> None:
    model, x, scale = network(), start(), torch.ones((), requires_grad=True)
    with pytest.raises(ValueError, match="no gradient by the times"):
        [*Exponential(model, Linear())(x, TIMES.clone().requires_grad_())]
    learnt = Exponential(model, Linear(), lambda t: scale * t)
    with pytest.raises(ValueError, match="no gradient by w"):
        [*learnt(x, TIMES)]
    sample(learnt, x, TIMES)  # no graph is stored, and none is needed
