"""Laws of objectives."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sitkit.interpolants import GVP, VP, Interpolant, Linear
from sitkit.objectives import Data, Matching, Noise, Quantity, Score, Velocity, usable_times, weights
from worlds import PATHS, RING

QUANTITIES = (Velocity, Noise, Score, Data)


def exact(quantity: type[Quantity], path: Interpolant, x_t: Tensor, t: Tensor) -> Tensor:
    """Return the prediction of a perfect network on the ring."""
    fields = {Velocity: RING.velocity, Noise: RING.noise, Score: RING.score, Data: RING.data}
    return fields[quantity](path)(x_t, t)


def wave(x_t: Tensor, t: Tensor) -> Tensor:
    """Stand in for a network."""
    return torch.cos(x_t) * t[:, None]


def batch(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = RING.draw(count, generator)
    eps = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return x, eps, 0.05 + 0.9 * torch.rand(count, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_field_of_a_perfect_network_is_the_exact_velocity(path: Interpolant, quantity: type[Quantity]) -> None:
    x, eps, t = batch(256)
    x_t = path.mix(x, eps, t)
    field = Matching(path, quantity).field(lambda x_t, t: exact(quantity, path, x_t, t))
    torch.testing.assert_close(field(x_t, t), RING.velocity(path)(x_t, t), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize(("predict", "measure"), [*itertools.product(QUANTITIES, (None, *QUANTITIES))])
def test_a_perfect_network_is_where_the_loss_is_flat(
    path: Interpolant, predict: type[Quantity], measure: type[Quantity] | None
) -> None:
    x, eps, t = batch(20_000)
    objective = Matching(path, predict, measure)

    def slopes(offset: float) -> Tensor:
        """Return the derivative of each loss along a change of the network, at the exact one plus an offset."""
        size = torch.full((len(x),), offset, dtype=torch.float64, requires_grad=True)
        model = lambda x_t, t: exact(predict, path, x_t, t) + size[:, None] * torch.sin(2 * x_t + t[:, None])  # noqa: E731
        (gradient,) = torch.autograd.grad(objective(model, x, eps, t).sum(), size)
        return gradient

    def z(values: Tensor) -> float:
        return float(values.mean().abs() / (values.std() / len(values) ** 0.5))

    assert z(slopes(0.0)) < 4.5
    assert z(slopes(0.5)) > 9  # the same test can fail


@given(st.sampled_from(PATHS), st.sampled_from(QUANTITIES), st.integers(0, 100))
def test_the_loss_depends_on_measure_and_not_on_predict(path, measure, seed) -> None:  # type: ignore[no-untyped-def]
    x, eps, t = batch(16, seed)
    x_t = path.mix(x, eps, t)
    velocity = RING.velocity(path)(x_t, t) + torch.sin(3 * x_t)  # some wrong field, read four ways
    outputs: dict[type[Quantity], Tensor] = {
        Velocity: velocity,
        Noise: path.noise_from_velocity(velocity, x_t, t),
        Score: path.score_from_velocity(velocity, x_t, t),
        Data: path.data_from_velocity(velocity, x_t, t),
    }
    losses = [Matching(path, predict, measure)(lambda *_, o=o: o, x, eps, t) for predict, o in outputs.items()]
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize(("predict", "measure"), [*itertools.product(QUANTITIES, QUANTITIES)])
def test_the_error_is_that_of_the_measured_quantity(
    path: Interpolant, predict: type[Quantity], measure: type[Quantity]
) -> None:
    x, eps, t = batch(16)
    x_t = path.mix(x, eps, t)
    right = path.velocity(x, eps, t)
    wrong = right + torch.sin(3 * x_t)

    def read(quantity: type[Quantity], velocity: Tensor) -> Tensor:
        conversions = {
            Velocity: lambda v, *_: v,
            Noise: path.noise_from_velocity,
            Score: path.score_from_velocity,
            Data: path.data_from_velocity,
        }
        return conversions[quantity](velocity, x_t, t)

    loss = Matching(path, predict, measure)(lambda *_: read(predict, wrong), x, eps, t)
    torch.testing.assert_close(loss, (read(measure, wrong) - read(measure, right)).square().mean(1))
    assert Matching(path, predict)(lambda x_t, t: x_t, x.float(), eps.float(), t).dtype == torch.float32


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_the_paper_weighting_turns_scores_into_velocities(path: Interpolant) -> None:
    x, eps, t = batch(64)
    weighted = Matching(path, Score, weight=weights.velocity(path))(wave, x, eps, t)
    torch.testing.assert_close(weighted, Matching(path, Score, measure=Velocity)(wave, x, eps, t))


def test_likelihood_weight_of_the_straight_path() -> None:
    t = torch.tensor([0.2, 0.7])
    torch.testing.assert_close(weights.likelihood(Linear())(t), 1 / (t * (1 - t)))


@pytest.mark.parametrize("path", [Linear(), GVP()], ids=repr)
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_losses_are_finite_at_both_ends(path: Interpolant, quantity: type[Quantity]) -> None:
    x, eps, _ = batch(2)
    for end in (0.0, 1.0):
        t = torch.full((2,), end, dtype=torch.float64)
        assert Matching(path, quantity)(lambda x_t, t: x_t, x, eps, t).isfinite().all()


def test_data_measured_as_velocity_stay_finite_where_there_is_only_noise() -> None:
    x, eps, _ = batch(2)
    zero = torch.zeros(2, dtype=torch.float64)
    loss = Matching(Linear(), Data, measure=Velocity)(lambda x_t, t: x_t, x, eps, zero)
    torch.testing.assert_close(loss, (eps - x).square().mean(1))


def test_the_loss_of_a_sample_does_not_depend_on_its_batch() -> None:
    x, eps = torch.randn(2, 3, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.2, 0.5, 0.8])
    objective = Matching(VP(), Noise, weight=lambda t: 1 + t)
    together = objective(lambda x_t, t: x_t, x, eps, t)
    alone = [objective(lambda x_t, t: x_t, x[k : k + 1], eps[k : k + 1], t[k : k + 1]) for k in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_shapes_that_do_not_fit_are_refused(quantity: type[Quantity]) -> None:
    x = torch.zeros(3, 1, 3, 3)
    objective = Matching(Linear(), quantity)
    with pytest.raises(ValueError, match="t must have shape"):
        objective(lambda x_t, t: x_t, x, x, torch.rand(1))
    with pytest.raises(ValueError, match="must return x's shape"):
        objective(lambda x_t, t: x_t[:, :, :1], x, x, torch.rand(3))


def test_a_half_precision_network_is_measured_in_single() -> None:
    x = torch.randn(4, 2)
    loss = Matching(Linear())(lambda x_t, t: x_t.bfloat16(), x, torch.randn(4, 2), torch.rand(4))
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(("predict", "measure"), [*itertools.product(QUANTITIES, (None, *QUANTITIES))])
def test_losses_are_single_precision_at_least(dtype: torch.dtype, predict: Any, measure: Any) -> None:
    x, eps, t = (value.to(dtype) for value in batch(8))
    seen: list[tuple[torch.dtype, torch.dtype]] = []

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append((x_t.dtype, t.dtype))
        return torch.cos(x_t)

    wide = torch.promote_types(dtype, torch.float32)
    objective = Matching(Linear(), predict, measure)
    for times in (t, t.double()):
        loss = objective(model, x, eps, times)
        assert loss.dtype == torch.promote_types(wide, times.dtype) or loss.dtype == wide
        exact = objective(lambda x_t, t: torch.cos(x_t.to(dtype).double()), *(v.double() for v in (x, eps, t)))
        torch.testing.assert_close(loss.double(), exact, rtol=0.1, atol=0.05)
    assert set(seen) == {(dtype, wide)}


def test_half_precision_errors_do_not_overflow() -> None:
    x = torch.zeros(2, 3, dtype=torch.float16)
    for predict in QUANTITIES:
        loss = Matching(Linear(), predict)(lambda x_t, t: x_t + 300, x, x, torch.full((2,), 0.3))
        scale = 0.49 if predict is Score else 1.0  # sigma^2, of which half precision would keep three digits
        torch.testing.assert_close(loss, torch.full((2,), scale * 300.0**2), rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_states_may_be_scalar_and_batches_empty(shape: tuple[int, ...], count: int) -> None:
    x, eps = torch.randn(2, count, *shape)
    t = torch.linspace(0.2, 0.8, count)
    for predict, measure in itertools.product(QUANTITIES, (None, Velocity)):
        objective = Matching(Linear(), predict, measure, weight=weights.velocity(Linear()))  # type: ignore[arg-type]
        loss = objective(lambda x_t, t: torch.sin(x_t), x, eps, t)
        assert loss.shape == (count,)
        as_rows = objective(
            lambda x_t, t: torch.sin(x_t),
            x.reshape(count, max(x[:1].numel(), 1)),
            eps.reshape(count, max(x[:1].numel(), 1)),
            t,
        )
        torch.testing.assert_close(loss, as_rows)
        assert objective.field(lambda x_t, t: x_t)(x, t).shape == x.shape


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # of torch 2.13's jvp, by itself
@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_losses_are_the_same_in_every_mode(path: Interpolant) -> None:
    x, eps, t = batch(4)
    for predict in QUANTITIES:
        objective = Matching(path, predict, measure=Velocity)
        loss = objective(wave, x, eps, t)
        for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
            with mode():
                torch.testing.assert_close(objective(wave, x, eps, t), loss)

        def alone(x: Tensor, eps: Tensor, t: Tensor, objective: Matching = objective) -> Tensor:
            return objective(wave, x[None], eps[None], t[None])[0]

        torch.testing.assert_close(torch.func.vmap(alone)(x, eps, t), loss)
        slopes = torch.func.vmap(torch.func.grad(alone))(x, eps, t)
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(objective(wave, leaf, eps, t).sum(), leaf)
        torch.testing.assert_close(slopes, expected)
        _, change = torch.func.jvp(lambda x, objective=objective: objective(wave, x, eps, t), (x,), (x,))  # type: ignore[misc]
        torch.testing.assert_close(change, (expected * x).sum(1))


class Roots(Interpolant):
    """A path whose alpha_dot is infinite at t = 0, and sigma_dot at t = 1."""

    def alpha(self, t: Tensor) -> Tensor:
        return t.sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        return (1 - t).sqrt()


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_times_at_which_the_velocity_of_a_sample_is_infinite_are_not_usable(quantity: type[Quantity]) -> None:
    assert usable_times(Roots(), quantity) == (1e-5, 1 - 1e-5)
    x = torch.ones(1, 2, dtype=torch.float64)
    field = Matching(Roots(), quantity).field(lambda x_t, t: exact(quantity, Roots(), x_t, t))
    for time in usable_times(Roots(), quantity):
        assert field(x, torch.full((1,), time, dtype=torch.float64)).isfinite().all()


def test_unknown_quantities_are_refused() -> None:
    with pytest.raises(
        ValueError, match="predict must be Velocity, Noise, Score or Data, the class itself, got 'noise'"
    ):
        Matching(Linear(), "noise")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="measure must be Velocity"):
        Matching(Linear(), measure=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="predict must be Velocity"):
        Matching(Linear(), None)  # type: ignore[arg-type]
