"""Laws of posterior sampling: exact posteriors, an independent implementation, NFE, ends and bad input."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from einops import repeat
from torch import Tensor

from marks import slow_unless
from sitkit.backbones import Mixture
from sitkit.interpolants import DDPM, GVP, VP, Interpolant, Linear
from sitkit.samplers import (
    RK4,
    SDE,
    Coarsening,
    Conditional,
    Counted,
    Field,
    Heun,
    Inpainting,
    Mean,
    MomentMatching,
    Rewarded,
    Sigma,
    Tweedie,
    adaptive,
    plan,
    sample,
    solve_each,
)
from worlds import PATHS, Quadratic, doubles, random_mixture

PRIOR = random_mixture(1, 4, seed=3)
MATRIX = torch.randn(3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
Y, STD = doubles(0.5, -0.4, 1.0), 0.3
REWARD = doubles(0.7, -0.3, 0.2, 0.5)
"""The gradient of a log-likelihood that is linear in x."""


def project(x: Tensor) -> Tensor:
    return x @ MATRIX.to(x).mT


def matched(path: Interpolant, rows: int = 5, **options: Any) -> MomentMatching:
    return MomentMatching(PRIOR.velocity(path), path, project, Y.expand(rows, -1), STD, **({"iterations": 3} | options))


def rewarded(path: Interpolant, **options: Any) -> Rewarded:
    return Rewarded(PRIOR.velocity(path), path, lambda x: x @ REWARD.to(x), scale=2.0, **options)


def posterior() -> tuple[Tensor, Tensor]:
    """Return mean and covariance of the normal prior given the observation."""
    mean, covariance = PRIOR.means[0], PRIOR.covariances[0]
    precision = covariance.inverse() + MATRIX.mT @ MATRIX / STD**2
    return precision.inverse() @ (covariance.inverse() @ mean + MATRIX.mT @ Y / STD**2), precision.inverse()


def tilted() -> tuple[Tensor, Tensor]:
    """Return mean and covariance of the normal prior times exp(2 REWARD x)."""
    return PRIOR.means[0] + PRIOR.covariances[0] @ REWARD * 2.0, PRIOR.covariances[0]


def interval(path: Interpolant) -> tuple[float, float]:
    """Return times between which the velocity is finite and not 0."""
    finite = isinstance(path, Linear | GVP)
    return (0.0 if finite or isinstance(path, VP | DDPM) else 1e-2), (0.999 if isinstance(path, VP | DDPM) else 1.0)


def planned(v: Field, path: Interpolant, x: Tensor, t: float, s: float) -> Tensor:
    made = plan(v, path, evaluations=25, interval=(t, s))
    return sample(made.solver, x, made.times)


SOLVE: dict[str, Callable[[Field, Interpolant, Tensor, float, float], Tensor]] = {
    "Heun": lambda v, path, x, t, s: sample(Heun(v), x, torch.linspace(t, s, 41, dtype=x.dtype)),
    "RK4": lambda v, path, x, t, s: sample(RK4(v), x, torch.linspace(t, s, 16, dtype=x.dtype)),
    "plan": planned,
    "adaptive": lambda v, path, x, t, s: adaptive(v, x, t, s, rtol=1e-4, atol=1e-4),
    "solve_each": lambda v, path, x, t, s: solve_each(v, x, t, s, rtol=1e-4, atol=1e-4),
}


@pytest.mark.parametrize(
    ("name", "field", "path"),
    [
        slow_unless(
            isinstance(path, Linear) or (name == "plan" and isinstance(path, VP | Quadratic)), name, field, path
        )
        for name in SOLVE
        for field in (matched, rewarded)
        for path in PATHS
    ],
)
def test_samples_of_a_normal_prior_have_the_posterior_mean_and_covariance(
    name: str, field: Callable[[Interpolant], Field], path: Interpolant
) -> None:
    """The flow is affine: it is known by its values at the mean and along the axes of the marginal at the start."""
    mean, covariance = posterior() if field is matched else tilted()
    start, end = interval(path)
    (alpha, beta), (sigma, tau) = path.alpha(doubles(start, end)), path.sigma(doubles(start, end))
    axes = torch.linalg.cholesky(alpha**2 * covariance + sigma**2 * torch.eye(4)).mT
    x = alpha * mean + torch.cat([torch.zeros(1, 4), axes])
    center, *others = SOLVE[name](field(path), path, x, start, end)
    reached = torch.stack(others) - center
    torch.testing.assert_close(center, beta * mean, rtol=0, atol=5e-3)
    expected = beta**2 * covariance + tau**2 * torch.eye(4)
    torch.testing.assert_close(reached.mT @ reached, expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize("time", [0.01, 0.05])
def test_the_error_of_the_covariance_before_the_least_time_is_of_second_order(time: float) -> None:
    x, t = torch.zeros(5, 4, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    mean, covariance = PRIOR.means[0], PRIOR.covariances[0]
    system = STD**2 * torch.eye(3) + MATRIX @ covariance @ MATRIX.mT
    exact = mean + covariance @ MATRIX.mT @ torch.linalg.solve(system, Y - MATRIX @ mean)
    errors = [(matched(Linear(), derivative_from=h)(x, t)[0] - exact).norm() for h in (time, time / 2)]
    assert 3.6 < float(errors[0] / errors[1]) < 4.4
    torch.testing.assert_close(rewarded(Linear(), derivative_from=1e-4)(x, t)[0], tilted()[0], rtol=0, atol=1e-6)


def dense(world: Mixture, path: Interpolant, x: np.ndarray, time: float) -> np.ndarray:
    """Return the velocity of `MomentMatching` at a state x (D,), from the covariance of x given x_t, in numpy."""
    t = torch.tensor(time, dtype=torch.float64)
    alpha, sigma, alpha_dot, sigma_dot = (float(f(t)) for f in (path.alpha, path.sigma, path.alpha_dot, path.sigma_dot))
    a, y, unit = MATRIX.numpy(), Y.numpy(), np.eye(len(x))
    logs, means, covariances = [], [], []
    for weight, mean, covariance in zip(world.weights, world.means.numpy(), world.covariances.numpy(), strict=True):
        marginal = alpha**2 * covariance + sigma**2 * unit
        rest = x - alpha * mean
        gain = alpha * covariance @ np.linalg.inv(marginal)
        logs.append(
            np.log(float(weight)) - (rest @ np.linalg.solve(marginal, rest) + np.linalg.slogdet(marginal)[1]) / 2
        )
        means.append(mean + gain @ rest)
        covariances.append(covariance - alpha * gain @ covariance)
    weights = np.exp(np.array(logs) - np.max(logs))
    weights /= weights.sum()
    data = sum(w * m for w, m in zip(weights, means, strict=True))
    spread = sum(w * (c + np.outer(m - data, m - data)) for w, m, c in zip(weights, means, covariances, strict=True))
    data = data + spread @ a.T @ np.linalg.solve(STD**2 * np.eye(3) + a @ spread @ a.T, y - a @ data)
    noise = (x - alpha * data) / sigma
    return np.asarray(alpha_dot * data + sigma_dot * noise)


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("time", [0.02, 0.3, 0.8, 0.97])
def test_moment_matching_of_a_mixture_equals_an_independent_implementation(path: Interpolant, time: float) -> None:
    world = random_mixture(3, 4, seed=1)
    t = torch.full((6,), time, dtype=torch.float64)
    x = path.mix(world.draw(6, torch.Generator().manual_seed(2)), torch.randn(6, 4, dtype=torch.float64), t)
    field = MomentMatching(world.velocity(path), path, project, Y.expand(6, -1), STD, iterations=3)
    expected = np.stack([dense(world, path, row, float(t[0])) for row in x.numpy()])
    torch.testing.assert_close(field(x, t), torch.from_numpy(expected), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("time", [0.02, 0.3, 0.9])
def test_rewarded_adds_the_gradient_by_the_state(path: Interpolant, time: float) -> None:
    velocity = random_mixture(3, 4, seed=1).velocity(path)
    t, x = torch.full((6,), time, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)

    def log_likelihood(x: Tensor) -> Tensor:
        return -(x**4).sum(1) + x.sin().prod(1)

    state = x.clone().requires_grad_()
    value = log_likelihood(path.data_from_velocity(velocity(state, t), state, t)).sum()
    (gradient,) = torch.autograd.grad(value, state)
    alpha, sigma = path.alpha(t[0]), path.sigma(t[0])
    rate = sigma * (path.alpha_dot(t[0]) * sigma / alpha - path.sigma_dot(t[0]))
    expected = velocity(x, t) + 0.6 * rate * gradient
    torch.testing.assert_close(Rewarded(velocity, path, log_likelihood, 0.6)(x, t), expected)


def test_as_many_iterations_as_observed_directions_solve_the_system() -> None:
    """The residual falls to a rounding error, and a row that is solved stays so, also where y is predicted exactly."""
    x, t = torch.randn(5, 4, dtype=torch.float64), torch.full((5,), 0.4, dtype=torch.float64)
    solved = matched(Linear(), iterations=3)(x, t)
    torch.testing.assert_close(matched(Linear(), iterations=30)(x, t), solved, rtol=0, atol=1e-10)
    assert not torch.allclose(matched(Linear(), iterations=2)(x, t), solved, rtol=0, atol=1e-4)
    velocity = PRIOR.velocity(Linear())
    predicted = project(Linear().data_from_velocity(velocity(x, t), x, t))
    field = MomentMatching(velocity, Linear(), project, predicted, STD)
    assert torch.equal(field(x, t), velocity(x, t))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_with_more_iterations_than_needed(dtype: torch.dtype) -> None:
    x, t = torch.randn(5, 4).to(dtype).requires_grad_(), torch.full((5,), 0.4).to(dtype)
    few, many = (torch.autograd.grad(matched(Linear(), iterations=n)(x, t).square().sum(), x)[0] for n in (3, 40))
    torch.testing.assert_close(many, few, rtol=1e-2, atol=1e-3)


def test_noiseless_observations_are_refused_at_the_data() -> None:
    field = MomentMatching(PRIOR.velocity(Linear()), Linear(), project, Y.expand(5, -1), 0.0)
    assert field(torch.randn(5, 4), torch.full((5,), 0.999)).isfinite().all()
    for t in (torch.ones(5), torch.tensor([0.1, 0.2, 0.3, 0.4, 1.0])):
        with pytest.raises(ValueError, match=r"std = 0 is infinite at t = 1, where sigma = 0: end before it"):
            field(torch.randn(5, 4), t)


def test_a_derivative_that_is_not_symmetric_does_not_make_the_residual_grow() -> None:
    """The data predicted from a rotation of the state, as a network with errors does."""
    turn = torch.linalg.matrix_exp(1.2 * (torch.triu(torch.ones(6, 6)) - torch.tril(torch.ones(6, 6)))).double()
    x, t, y = torch.randn(5, 6).double(), torch.full((5,), 0.5).double(), torch.randn(5, 6).double()
    jacobian = 0.1 * torch.eye(6) + turn

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return Linear().velocity_from_data(x @ jacobian.mT, x, t)

    residuals = []
    for iterations in range(1, 7):
        field = MomentMatching(velocity, Linear(), lambda x: x, y, 0.05, iterations=iterations)
        change = field(x, t) - velocity(x, t)
        u: Tensor = torch.linalg.solve(jacobian.mT, change.mT)  # Delta sigma / alpha = 1, so the change is J^T u
        data = x @ jacobian.mT
        residuals.append((y - data - (0.05**2 * u + 0.5 * jacobian.mT @ u).mT).norm(dim=1))
    assert (torch.stack(residuals).diff(dim=0) < 1e-9).all()
    assert (residuals[-1] < 1e-9).all()


class Products(torch.autograd.Function):
    """The identity, which counts vector-Jacobian products."""

    count = 0

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        Products.count += 1
        return gradient


@pytest.mark.parametrize("iterations", [1, 4])
def test_an_evaluation_costs_one_nfe_and_a_product_per_iteration(iterations: int) -> None:
    exact = PRIOR.velocity(Linear())
    velocity = Counted(lambda x, t: exact(Products.apply(x), t))  # type: ignore[no-untyped-call]
    matching = MomentMatching(velocity, Linear(), project, Y.expand(2, -1), STD, iterations=iterations)
    reward = Rewarded(velocity, Linear(), lambda x: x @ REWARD)
    x = torch.randn(2, 4, dtype=torch.float64)
    for field, products in ((matching, iterations), (reward, 1)):
        velocity.calls = Products.count = 0
        sample(Heun(field), x, torch.linspace(0, 1, 6))
        assert (velocity.calls, Products.count) == (10 + 1, 10 * products)  # one more at t = 0
        velocity.calls = Products.count = 0
        made = plan(field, Linear(), evaluations=7, interval=(0.05, 1.0))
        sample(made.solver, x, made.times)
        assert (velocity.calls, Products.count) == (7, 7 * products)


WHOLE = torch.linspace(0, 1, 6)
WAYS: dict[str, Callable[[Field, Interpolant, Tensor], Tensor]] = {
    "Heun": lambda v, path, x: sample(Heun(v), x, WHOLE),
    "Heun, back": lambda v, path, x: sample(Heun(v), x, WHOLE.flip(0)),
    "plan": lambda v, path, x: planned(v, path, x, 0.0, 1.0),
    "Tweedie": lambda v, path, x: sample(Heun(v), x, WHOLE, last=Tweedie(v, path)),
    "Mean": lambda v, path, x: sample(Heun(v), x, WHOLE, last=Mean(SDE(v, path, Sigma(path)))),
    "adaptive": lambda v, path, x: adaptive(v, x, 0, 1, rtol=1e-2, atol=1e-2),
    "solve_each": lambda v, path, x: solve_each(v, x, 0, 1, rtol=1e-2, atol=1e-2),
}


@pytest.mark.parametrize(("exact", "std"), [(True, STD), (False, STD), (True, 0.0)])
@pytest.mark.parametrize("path", [slow_unless(type(path) in (Linear, VP), path) for path in PATHS], ids=repr)
@pytest.mark.parametrize("way", WAYS)
def test_no_end_gives_nan(way: str, path: Interpolant, exact: bool, std: float) -> None:
    """On all of [0, 1], and back, samples are finite or one line names the time and the fix."""
    velocity = PRIOR.velocity(path) if exact else lambda x, t: (x * 0.3).sin() - x / 2
    x = torch.randn(3, 4)
    for field in (
        MomentMatching(velocity, path, project, Y.expand(3, -1), std),
        Rewarded(velocity, path, lambda x: x.sum(1)),
    ):
        if not std and way in ("adaptive", "solve_each"):
            continue  # stiff near the data
        told = ""
        try:
            told = "" if WAYS[way](field, path, x).isfinite().all() else "not finite"
        except ValueError as error:
            told = str(error)
        assert not told or "t = " in told or "from 0.0 to 1.0" in told


@pytest.mark.parametrize("path", [Linear(), GVP()], ids=repr)
def test_both_ends_are_finite_and_the_end_is_the_velocity_of_the_prior(path: Interpolant) -> None:
    x = torch.randn(5, 4, dtype=torch.float64)
    for field in (matched(path), rewarded(path)):
        assert field(x, torch.zeros(5, dtype=torch.float64)).isfinite().all()
        one = torch.ones(5, dtype=torch.float64)
        torch.testing.assert_close(field(x, one), PRIOR.velocity(path)(x, one), rtol=0, atol=1e-12)


def test_operators_observe_masks_and_means_of_blocks() -> None:
    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    assert torch.equal(Coarsening(2)(x)[0, 0], torch.tensor([[2.5, 4.5], [10.5, 12.5]]))
    assert Coarsening(2)(torch.zeros(3, 1, 6)).shape == (3, 1, 3)
    assert Coarsening(2)(torch.zeros(3, 1, 2, 4, 6)).shape == (3, 1, 1, 2, 3)
    mask = torch.tensor([True, False, True, False])
    assert torch.equal(Inpainting(mask)(x), x * repeat(mask, "w -> 1 c h w", c=2, h=4))
    each = torch.rand(5, 2, 4, 4).round()
    y = torch.randn(5, 2, 4, 4)
    index = torch.tensor([3, 1, 4])
    assert torch.equal(Inpainting(each).rows(index).rows(torch.tensor([1]))(y[1:2]), (each * y)[1:2])
    assert torch.equal(Inpainting(each[0]).rows(index)(y[index]), (each[0] * y)[index])


@pytest.mark.parametrize("operator", [Inpainting(torch.tensor([1.0, 0, 1, 0])), Inpainting(torch.eye(5, 4))])
def test_a_restriction_to_rows_is_the_field_of_those_rows(operator: Inpainting) -> None:
    def velocity(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return -x * y[:, None]

    labels, x, t = torch.rand(5), torch.randn(5, 4), torch.rand(5)
    field = MomentMatching(Conditional(velocity, labels), Linear(), operator, operator(torch.randn(5, 4)), 0.1)
    index = torch.tensor([4, 0, 2])
    torch.testing.assert_close(field.rows(index)(x[index], t[index]), field(x, t)[index])
    counted = Counted(velocity)
    rows = MomentMatching(Conditional(counted, labels), Linear(), operator, field.y, 0.1)
    reached = solve_each(rows, x, 0.1, 0.9)
    assert counted.rows < 5 * counted.calls  # rows that are done are left out
    torch.testing.assert_close(reached, solve_each(field.__call__, x, 0.1, 0.9), rtol=0, atol=1e-4)
    assert not hasattr(matched(Linear()), "rows")
    reward = Rewarded(Conditional(velocity, labels), Linear(), lambda x: x.sum(1))
    assert not hasattr(reward, "rows")


def test_jumps_are_those_of_the_velocity() -> None:
    velocity = PRIOR.velocity(Linear())
    velocity.jumps = (0.3,)  # type: ignore[attr-defined]
    counted = Counted(velocity)
    assert MomentMatching(counted, Linear(), project, Y.expand(5, -1), STD).jumps == (0.3,)
    assert Rewarded(counted, Linear(), lambda x: x.sum(1)).jumps == (0.3,)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "affine": ({"operator": lambda x: project(x) + 1}, r"must be linear: .* subtract the constant"),
    "absolute": ({"operator": lambda x: project(x).abs()}, "must be linear"),
    "clamped": ({"operator": lambda x: project(x.clamp(-1, 1))}, "must be linear"),
    "integers": ({"operator": lambda x: x.long()}, r"operator must be differentiable|floating point"),
    "detached operator": ({"operator": lambda x: project(x.detach())}, "the operator must be differentiable"),
    "y of another size": ({"y": torch.zeros(5, 2)}, r"shape of the operator's result, \(5, 3\) .*got \(5, 2\)"),
    "y of one row": ({"y": torch.zeros(3)}, r"\(5, 3\) .*got \(3,\)"),
    "nan": ({"y": torch.full((5, 3), torch.nan)}, "y must be finite"),
    "negative std": ({"std": -0.1}, r"std must be a number, at least 0 and finite, got -0\.1"),
    "infinite std": ({"std": torch.inf}, "std must be .* got inf"),
    "std of rows": ({"std": torch.ones(5)}, "std must be a number"),
    "no iterations": ({"iterations": 0}, "iterations must be a whole number, at least 1, got 0"),
    "half an iteration": ({"iterations": 1.5}, "iterations must be a whole number"),
    "time 0": ({"derivative_from": 0.0}, r"derivative_from must be a time inside \(0, 1\), got 0\.0"),
    "detached": ({"velocity": lambda x, t: x.detach() + 1}, "the velocity must be differentiable by the state: remove"),
    "mask": ({"operator": Inpainting(torch.ones(3))}, r"mask of shape \(3,\) does not broadcast to states \(5, 4\)"),
    "block": ({"operator": Coarsening(3)}, r"Coarsening by 3 needs states \(B, C, \*\).*got \(5, 4\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_a_line(name: str) -> None:
    change, message = BAD[name]
    good = {"velocity": PRIOR.velocity(Linear()), "operator": project, "y": Y.expand(5, -1), "std": STD}
    x, t = torch.randn(5, 4, dtype=torch.float64), torch.full((5,), 0.5, dtype=torch.float64)
    MomentMatching(path=Linear(), **good)(x, t)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message) as caught:
        MomentMatching(path=Linear(), **(good | change))(x, t)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_bad_log_likelihood_is_refused_in_a_line() -> None:
    velocity, x, t = PRIOR.velocity(Linear()), torch.randn(5, 4).double(), torch.full((5,), 0.5).double()
    for change, message in (
        ({"log_likelihood": lambda x: x}, r"one number for each row, of shape \(5,\), got \(5, 4\)"),
        ({"log_likelihood": torch.sum}, "with a row for each sample, got a scalar"),
        ({"log_likelihood": lambda x: x.detach().sum(1)}, "log_likelihood must be differentiable"),
        ({"velocity": lambda x, t: torch.ones(1, requires_grad=True) + x.detach()}, "velocity must be differentiable"),
        ({"scale": torch.nan}, "scale must be a finite number, got nan"),
        ({"derivative_from": 1.0}, r"inside \(0, 1\), got 1\.0"),
    ):
        good = {"velocity": velocity, "path": Linear(), "log_likelihood": lambda x: x.sum(1)}
        with pytest.raises(ValueError, match=message):
            Rewarded(**(good | change))(x, t)  # type: ignore[arg-type]


def test_an_operator_is_tested_once_for_each_shape() -> None:
    calls = []

    def counted(x: Tensor) -> Tensor:
        calls.append(len(x))
        return project(x)

    field = MomentMatching(PRIOR.velocity(Linear()), Linear(), counted, Y.expand(5, -1), STD, iterations=1)
    x, t = torch.randn(5, 4, dtype=torch.float64), torch.full((5,), 0.5, dtype=torch.float64)
    for expected in (2 + 5, 2, 2):
        calls.clear()
        field(x, t)
        assert len(calls) == expected


def test_operators_without_their_transpose_or_with_coupled_rows_are_refused() -> None:
    """Automatic differentiation of a detached or rounded operator gives no guidance and raises no error."""
    x, y, t = torch.randn(4, 3), torch.zeros(4, 3), torch.full((4,), 0.5)
    mask = torch.tensor([1.0, 0.0, 1.0])
    for operator, said in (
        (lambda z: z.detach() * mask + 0 * z, "the derivative of the operator is not its transpose"),
        (lambda z: (z * 1e5).round() / 1e5, "the derivative of the operator is not its transpose"),
        (lambda z: z - z.mean(0), "the operator must treat rows separately"),
        (lambda z: z.abs(), "use Rewarded for one that is not linear"),
    ):
        with pytest.raises(ValueError, match=said):
            MomentMatching(lambda x, t: -x, Linear(), operator, y, 0.1)(x, t)
    for wrong in (y.long(), y.tolist()):
        with pytest.raises(ValueError, match="y must be a floating point tensor, in the units of the states, got"):
            MomentMatching(lambda x, t: -x, Linear(), lambda z: z, wrong, 0.1)  # type: ignore[arg-type]


def test_functions_and_times_of_another_kind_are_refused() -> None:
    x, y, t = torch.randn(3, 2), torch.zeros(3, 2), torch.full((3,), 0.5)
    velocity = lambda x, t: -x  # noqa: E731
    results: tuple[Any, ...] = (lambda x: x.detach().numpy(), lambda x: None, lambda x: (x, x))
    for result in results:
        with pytest.raises(ValueError, match="must return a tensor with a row for each sample, got"):
            MomentMatching(velocity, Linear(), result, y, 0.1)(x, t)
        with pytest.raises(ValueError, match="must return a tensor with a row for each sample, got"):
            Rewarded(velocity, Linear(), result)(x, t)
    with pytest.raises(ValueError, match="must return a tensor with a row for each sample, got a scalar"):
        MomentMatching(velocity, Linear(), lambda x: x.sum(), torch.tensor(0.0), 0.1)(x, t)
    wrong: Any = torch.eye(2)
    with pytest.raises(ValueError, match="operator must be a function, got Tensor"):
        MomentMatching(velocity, Linear(), wrong, y, 0.1)
    with pytest.raises(ValueError, match="log_likelihood must be a function, got Tensor"):
        Rewarded(velocity, Linear(), wrong)
    with pytest.raises(ValueError, match="log_likelihood must be finite, got nan for a row"):
        Rewarded(velocity, Linear(), lambda x: x[:, 0] * torch.nan)(x, t)
    late: Any = None
    with pytest.raises(ValueError, match="derivative_from must be a time inside"):
        Rewarded(velocity, Linear(), lambda x: x[:, 0], derivative_from=late)
