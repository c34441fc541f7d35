"""The `check` functions for users: every component of the libraries passes, and each broken law is named."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from marks import slow_unless
from sitkit import objectives, samplers
from sitkit.interpolants import VP, Interpolant, Linear
from sitkit.objectives import Data, Field, LossCurve, Matching, Noise, Objective, Score, Velocity
from sitkit.objectives.check import MEAN, STD, _quadrature
from sitkit.samplers import KL, Constant, KLEta, RaisedCosine, Sigma, SineSquared
from worlds import PATHS, Quadratic, random_mixture

QUANTITIES = (Velocity, Noise, Score, Data)


@pytest.mark.parametrize(
    ("path", "predict", "measure"),
    [
        slow_unless(measure is None or isinstance(path, VP | Quadratic), path, predict, measure)
        for path, predict, measure in itertools.product(PATHS, QUANTITIES, (None, *QUANTITIES))
    ],
)
def test_every_objective_passes(path: Interpolant, predict, measure) -> None:  # type: ignore[no-untyped-def]
    objectives.check(Matching(path, predict, measure))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_objectives_are_checked_equally_in_every_grad_mode(mode: Callable[[], Any]) -> None:
    with mode():
        objectives.check(Matching(Linear()))
        objectives.check(Matching(Linear(), Score, Data))
        with pytest.raises(ValueError, match="the field of the best network is the velocity"):
            objectives.check(Mine("field"))


@dataclass(frozen=True)
class Mine:
    """An objective that breaks one law."""

    law: str

    def __call__(self, model: Field, x: Tensor, eps: Tensor, t: Tensor, /) -> Tensor:
        x_t, velocity = Linear().mix(x, eps, t), Linear().velocity(x, eps, t)
        error = (model(x_t, t) - velocity).flatten(1)
        if self.law == "random":
            error = error + torch.rand_like(error)
        if self.law == "infinite":
            error = error / (0.6 - t[:, None]).clamp(min=0)
        if self.law == "mates":
            error = error - error.mean(0) * (t[:, None] > 0.6)
        if self.law == "median":
            error = error + 0.3 * error**2  # the minimum is not the mean
        if self.law == "flat":
            error = 0 * error
        loss = error.square()
        return loss.mean() if self.law == "shape" else loss.mean(1)

    def field(self, model: Field, /) -> Field:
        low, high = {"field": (0.0, 1.0), "early": (0.0, 0.3), "slight": (0.0, 1.0), "late": (0.7, 1.0)}.get(
            self.law, (2.0, 3.0)
        )
        if self.law == "offset":
            return lambda x_t, t: model(x_t, t) - model(0 * x_t, t)
        excess = 0.02 if self.law == "slight" else 1.0
        return lambda x_t, t: model(x_t, t) * (1 + excess * ((low < t) & (t < high))[:, None].to(x_t))


@dataclass(frozen=True)
class Bregman:
    """The divergence of F(v) = v^2 + v^3 / 10, least at the mean as every Bregman divergence, and not a square."""

    def __call__(self, model: Field, x: Tensor, eps: Tensor, t: Tensor, /) -> Tensor:
        v, output = Linear().velocity(x, eps, t), model(Linear().mix(x, eps, t), t)
        slope = 2 * output + 0.3 * output**2
        return (v**2 + v**3 / 10 - output**2 - output**3 / 10 - slope * (v - output)).flatten(1).mean(1)

    def field(self, model: Field, /) -> Field:
        return model


def test_custom_objectives_pass() -> None:
    objectives.check(Mine("none"))
    objectives.check(Bregman())


def test_expectations_of_normal_data_are_exact() -> None:
    x, eps, weights = _quadrature()
    for values, expected in ((eps**0, 1), (eps, 0), (eps**2, 1), (eps**4, 3), (x, MEAN), ((x - MEAN) ** 2, STD**2)):
        assert float((weights[:, None] * values).sum()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("law", "said"),
    [
        ("random", "the same at every call"),
        ("infinite", "the loss is finite' does not hold at t = 0.8"),
        ("mates", "depend on other samples' does not hold at t = 0.8"),
        ("slight", r"velocity \(error"),
        ("offset", r"velocity \(error"),
        ("median", r"velocity \(error"),
        ("flat", "one minimum"),
        ("shape", "must have shape"),
        ("field", "the field of the best network is the velocity"),
        ("early", "is the velocity .* at t = 0.2"),
        ("late", "is the velocity .* at t = 0.8"),
    ],
)
def test_the_broken_law_of_an_objective_is_named(law: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        objectives.check(Mine(law))


def test_an_objective_that_mixes_wrongly_is_seen() -> None:
    class Swapped(Matching):
        def __call__(self, model: Field, x: Tensor, eps: Tensor, t: Tensor, /) -> Tensor:
            return super().__call__(model, eps, x, t)

    check: Callable[[Objective], None] = objectives.check
    with pytest.raises(ValueError, match="from noise to data"):
        check(Swapped(Linear(), Velocity, weight=lambda t: 1 + t, measure=Noise))


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_every_w_passes(path: Interpolant) -> None:
    for w in (Constant(0.0), Constant(2.0), Sigma(path), SineSquared(), RaisedCosine(), KL(path)):
        samplers.check(w)
    samplers.check(KLEta(path, 0.5, LossCurve([0.0, 1.0], [2.0, 3.0])))
    samplers.check(lambda t: 4 * t * (1 - t))
    samplers.check(Constant(300.0))  # which asks for shorter steps


@pytest.mark.parametrize(
    ("w", "said"),
    [
        (lambda t: t - 0.5, "finite and at least 0"),
        (lambda t: 0.95 - t, "finite and at least 0"),
        (lambda t: t - 0.05, "finite and at least 0"),
        (lambda t: 1 / (t - 0.5) ** 2, "finite and at least 0"),
        (lambda t: t / t.max(), "each time separately"),
        (lambda t: t[None], "shape and dtype"),
        (lambda t: t.float(), "shape and dtype"),
        (lambda t: t.double(), "shape and dtype"),
        (lambda t: 1.0, "shape and dtype"),
    ],
)
def test_the_broken_law_of_a_w_is_named(w, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=said):
        samplers.check(w)


def test_a_w_with_peaks_too_narrow_to_be_seen_is_found_to_lose_the_marginal() -> None:
    def w(t: Tensor) -> Tensor:
        """Return 400 at most multiples of 1 / 1250, and 0 elsewhere."""
        on_peak = ((1250 * t).round() / 1250 - t).abs() < 1e-9
        seen = ((200 * t).round() / 200 - t).abs() < 1e-6
        return torch.where(on_peak & ~seen, 400.0, 0.0).to(t.dtype)

    with pytest.raises(ValueError, match="keeps the marginals"):
        samplers.check(w)


def test_a_w_is_checked_in_bounded_memory_and_between_coarse_times() -> None:
    samplers.check(lambda t: 1e-3 * t**-6)  # large where no chain is run

    def peak(height: float) -> Callable[[Tensor], Tensor]:
        """Return 1, but at a peak of width 1e-5 another value."""
        return lambda t: torch.where((t - 0.503217).abs() < 5e-6, height, 1.0).to(t.dtype)

    for height, said in (
        (1e6, "w is 1e.06 at t = 0.5032 and would need 1.0e.08 steps"),
        (-1.0, "finite and at least 0"),
    ):
        with pytest.raises(ValueError, match=said):
            samplers.check(peak(height))


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_the_measured_loss_curve_is_the_error_plus_the_irreducible_loss(path: Interpolant) -> None:
    world, generator = random_mixture(1, 3, seed=0), torch.Generator().manual_seed(0)
    x = world.draw(40_000, generator)
    eps = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    times = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    exact = world.velocity(path)
    curve, off = (LossCurve.measure(field, path, x, eps, times) for field in (exact, lambda x, t: exact(x, t) + 0.5))
    torch.testing.assert_close(off(times) - curve(times), torch.full((3,), 0.75).double(), rtol=0, atol=0.1)
    for t in times:  # normal data: the variance of the velocity given the state is known
        alpha, sigma, alpha_dot, sigma_dot = (f(t) for f in (path.alpha, path.sigma, path.alpha_dot, path.sigma_dot))
        variances = torch.linalg.eigvalsh(world.covariances[0])
        spread = alpha**2 * variances + sigma**2
        left = (alpha_dot * sigma - alpha * sigma_dot) ** 2 * variances / spread
        assert float(curve(t)) == pytest.approx(float(left.sum()), rel=0.03)


def test_a_loss_curve_is_linear_between_and_constant_beyond() -> None:
    curve = LossCurve([0.2, 0.4, 0.8], [1.0, 3.0, 1.0])
    t = torch.tensor([0.0, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0])
    torch.testing.assert_close(curve(t), torch.tensor([1.0, 1.0, 2.0, 3.0, 2.0, 1.0, 1.0]))
    assert curve(t.double()).dtype == torch.float64
    assert curve(torch.tensor(0.3)).shape == ()
    assert LossCurve([0.5], [2.0])(t).dtype == torch.float32
    assert LossCurve([0.5], [2.0])(t).tolist() == [2.0] * 7
    assert LossCurve([0.5], [0.0])(t).tolist() == [0.0] * 7
    for times, losses in (
        ([], []),
        ([0.2, 0.2], [1.0, 1.0]),
        ([0.1], [1.0, 2.0]),
        ([0.1], [-1.0]),
        ([0.1], [math.nan]),
        ([0.1], [math.inf]),
        ([0.1, 0.2], [1.0, math.nan]),
        ([math.nan], [1.0]),
        ([0.1, math.inf], [1.0, 1.0]),
    ):
        with pytest.raises(ValueError, match="increasing times and a loss"):
            LossCurve(times, losses)
    x = torch.randn(4, 2)
    grad_enabled: list[bool] = []

    def field(x: Tensor, t: Tensor) -> Tensor:
        grad_enabled.append(torch.is_grad_enabled())
        return x

    LossCurve.measure(field, Linear(), x, x, t)
    assert not any(grad_enabled)
    assert len(grad_enabled) == len(t)
    numbers = LossCurve.measure(lambda x, t: torch.zeros_like(x), Linear(), x[:, 0], x[:, 1], t)
    assert numbers.losses == pytest.approx([float((x[:, 0] - x[:, 1]).square().mean())] * len(t))
    half = LossCurve.measure(lambda x, t: torch.zeros_like(x), Linear(), x.half(), x.half() - 300, t)
    assert half.losses == pytest.approx([2 * 300.0**2] * len(t), rel=1e-2)
    with pytest.raises(ValueError, match="at least one sample of data"):
        LossCurve.measure(field, Linear(), x[:0], x[:0], t)
    by_time = torch.func.vmap(curve)(t)
    torch.testing.assert_close(by_time, curve(t))
    assert curve(t[:0]).shape == (0,)
    with pytest.raises(ValueError, match="measure at times inside"):
        LossCurve.measure(lambda x, t: x / 0, Linear(), x, x, t)
