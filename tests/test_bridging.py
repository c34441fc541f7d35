"""Laws of the objective of two-sided paths, and of sources that are made of the data."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from sitkit.backbones import MixtureBridge, SiT
from sitkit.interpolants import Bridge, Linear, QuadraticBridge, SineBridge, TwoSided
from sitkit.objectives import (
    Bridging,
    Coupling,
    Hybrid,
    LossCurve,
    Matching,
    check,
    sources,
    usable_times,
    usable_times_of,
)
from sitkit.samplers import SDE, Constant, Counted, EulerMaruyama, Heun, Mean, StochasticHeun, Window, log_probs, sample
from sitkit.samplers import trajectory as states_of
from worlds import BRIDGES, Curved, Field, Noiseless, random_mixture

SOURCE, DATA = random_mixture(2, 2, seed=4), random_mixture(3, 2, seed=5)
bridges = pytest.mark.parametrize("bridge", BRIDGES, ids=repr)


def network_of(bridge: TwoSided) -> Field:
    """Return the perfect network: the exact drift and noise as channels."""
    exact = MixtureBridge(SOURCE, DATA, bridge)
    return lambda x, t: torch.cat([exact.drift(x, t), exact.noise(x, t)], 1)


def wave(x_t: Tensor, t: Tensor) -> Tensor:
    """Stand in for a network."""
    t = t.reshape(-1, *[1] * (x_t.ndim - 1)).to(x_t)
    return torch.cat([torch.cos(x_t) * t, torch.sin(x_t) + t], 1)


def batch(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, source = DATA.draw(count, generator), SOURCE.draw(count, generator)
    z = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return x, source, z, torch.rand(count, generator=generator, dtype=torch.float64)


@bridges
@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("channels", [(1, 1, 0, 0), (0, 0, 1, 1)], ids=["drift", "noise"])
def test_the_exact_fields_are_where_the_loss_is_flat(
    bridge: TwoSided, antithetic: bool, channels: tuple[int, ...]
) -> None:
    x, source, z, t = batch(10_000)
    objective, exact, which = Bridging(bridge, antithetic), network_of(bridge), torch.tensor(channels)

    def slopes(offset: float) -> Tensor:
        """Return the derivative of each loss along a change of the network, at the exact one plus an offset."""
        size = torch.full((len(x),), offset, dtype=torch.float64, requires_grad=True)

        def model(x_t: Tensor, t: Tensor) -> Tensor:
            change = torch.sin(2 * x_t + t[:, None]).repeat(1, 2)
            return exact(x_t, t).detach() + size[:, None] * which * change

        (gradient,) = torch.autograd.grad(objective(model, x, source, z, t).sum(), size)
        return gradient

    def standard_score(values: Tensor) -> float:
        return float(values.mean().abs() / (values.std() / len(values) ** 0.5))

    assert standard_score(slopes(0.0)) < 4.5
    assert standard_score(slopes(0.5)) > 9  # the same test can fail


@dataclass(frozen=True)
class BrokenBridging(Bridging):
    """An objective that breaks one law."""

    law: str = "none"

    def __call__(self, model: Field, x: Tensor, source: Tensor, z: Tensor, t: Tensor, /) -> Tensor:
        if self.law == "swapped":
            x, source = source, x
        loss = super().__call__(model, x, source, z, t)
        return {"shape": loss.mean(), "mates": loss + loss.sum(), "random": loss + torch.rand_like(loss)}.get(
            self.law, loss
        )

    def scored(self, model: Field, /) -> Any:
        scored = super().scored(model)
        return (lambda x, t: (scored(x, t)[0], scored(x, t)[0])) if self.law == "score" else scored


@pytest.mark.parametrize("bridge", [Bridge(), SineBridge(), Curved()], ids=repr)
@pytest.mark.parametrize("antithetic", [False, True])
def test_check_accepts_the_objective(bridge: TwoSided, antithetic: bool) -> None:
    with torch.inference_mode():
        check(Bridging(bridge, antithetic))


@pytest.mark.parametrize(
    ("law", "said"),
    [
        ("swapped", "the states go from source to data"),
        ("shape", "the loss must have shape"),
        ("mates", "does not depend on other samples"),
        ("random", "the same at every call"),
        ("score", "the second value of `scored` of the best network is the score"),
    ],
)
def test_check_names_the_law_that_is_broken(law: str, said: str) -> None:
    check(BrokenBridging(Bridge()))
    with pytest.raises(ValueError, match=said):
        check(BrokenBridging(Bridge(), law=law))


@bridges
def test_the_loss_is_the_mean_square_over_all_channels(bridge: TwoSided) -> None:
    x, source, z, t = batch(8)
    targets = torch.cat([bridge.drift(x, source, t), z], 1)
    expected = (wave(bridge.mix(x, source, z, t), t) - targets).square().mean(1)
    loss = Bridging(bridge)(wave, x, source, z, t)
    torch.testing.assert_close(loss, expected)
    counted = Counted(wave)
    both = Bridging(bridge, antithetic=True)(counted, x, source, z, t)
    torch.testing.assert_close(both, (loss + Bridging(bridge)(wave, x, source, -z, t)) / 2)
    assert counted.calls == 2
    for end in (0.0, 1.0):
        at_end = torch.full_like(t, end)
        for antithetic in (False, True):
            assert Bridging(bridge, antithetic)(wave, x, source, z, at_end).isfinite().all()


def test_antithetic_noise_has_gradients_of_smaller_variance_near_the_ends() -> None:
    x, source, z, _ = batch(2_000)
    t, spreads = torch.full((len(x),), 0.001, dtype=torch.float64), []
    for antithetic in (False, True):
        size = torch.zeros(len(x), dtype=torch.float64, requires_grad=True)
        model = lambda x_t, t: network_of(Bridge())(x_t, t).detach() + size[:, None] * torch.ones(1, 4)  # noqa: B023, E731
        loss = Bridging(Bridge(), antithetic)(model, x, source, z, t)
        (gradient,) = torch.autograd.grad(loss.sum(), size)
        spreads.append(float(gradient.var() - _drift_part(gradient, x - source)))
    assert spreads[1] < 0.1 * spreads[0]


def _drift_part(gradient: Tensor, target: Tensor) -> Tensor:
    """Return the variance of the gradient that a linear regression on the drift's target explains."""
    columns = torch.cat([target, torch.ones(len(target), 1)], 1)
    fitted: Tensor = columns @ torch.linalg.lstsq(columns, gradient[:, None]).solution
    return (fitted - fitted.mean()).square().mean()


@bridges
def test_velocity_and_score_of_a_perfect_network_are_exact_and_cost_one_evaluation(bridge: TwoSided) -> None:
    exact, model = MixtureBridge(SOURCE, DATA, bridge), Counted(network_of(bridge))
    objective = Bridging(bridge)
    x, t = torch.randn(4, 2, dtype=torch.float64), torch.tensor([0.05, 0.3, 0.7, 0.95], dtype=torch.float64)
    velocity, score = objective.scored(model)(x, t)
    assert model.calls == 1
    torch.testing.assert_close(velocity, exact.velocity(x, t))
    torch.testing.assert_close(score, exact.score(x, t))
    assert torch.equal(objective.field(model)(x, t), velocity)
    assert model.calls == 2


@bridges
def test_samples_of_a_perfect_network_start_inside_and_end_at_the_data(bridge: TwoSided) -> None:
    """Up to t = 1 without an evaluation there; at t = 0 and times inside, the network is evaluated."""
    model, objective = network_of(bridge), Bridging(bridge)
    x, times = MixtureBridge(SOURCE, DATA, bridge).along(0.01).draw(20), torch.linspace(0.01, 1, 12).double()
    sde = SDE.of(objective.scored(model), bridge.gamma)
    assert sample(EulerMaruyama(sde), x, times, last=Mean(sde)).isfinite().all()
    steps = states_of(EulerMaruyama(sde), x, times[:-1])
    assert log_probs(EulerMaruyama(sde), steps, times[:-1]).shape == (10, 20)
    whole = torch.linspace(0, 1, 12).double()
    infinite = (
        r"the velocity is not finite at t = 0, where .*gamma_dot = inf: use times inside \(0, 1\), from t = 0.001"
    )
    windowed = SDE.of(objective.scored(model), Window(Constant(0.5), (0.2, 0.8)))
    for solver in (EulerMaruyama(sde), StochasticHeun(sde), StochasticHeun(windowed), Heun(objective.field(model))):
        if isinstance(bridge, SineBridge | QuadraticBridge):  # where w = 0, the score is not needed
            assert sample(solver, x, whole).isfinite().all()
        else:
            with pytest.raises(ValueError, match=infinite):
                sample(solver, x, whole)
    with pytest.raises(ValueError, match=r"the (score|velocity) is not finite at t = 0"):
        sample(EulerMaruyama(SDE.of(objective.scored(model), Constant(1.0))), x, whole)


class OneSteepEnd(Curved):
    """A path whose gamma_dot is infinite at t = 0 only."""

    def gamma(self, t: Tensor) -> Tensor:
        return torch.sqrt(t) * (1 - t)


def test_each_end_has_its_usable_time() -> None:
    assert usable_times(OneSteepEnd()) == (1e-5, 1.0)


@pytest.mark.parametrize("bridge", [*BRIDGES, Noiseless()], ids=repr)
def test_the_velocity_is_finite_at_usable_times(bridge: TwoSided) -> None:
    smooth = isinstance(bridge, SineBridge | QuadraticBridge | Noiseless)
    assert usable_times(bridge) == ((0.0, 1.0) if smooth else (1e-5, 1 - 1e-5))
    field = Bridging(bridge).field(wave)
    assert usable_times_of(field, bridge) == usable_times(bridge)
    for time in usable_times(bridge):
        assert field(torch.ones(2, 1), torch.full((2,), time)).isfinite().all()


def test_without_noise_there_is_no_sde() -> None:
    objective, x = Bridging(Noiseless()), torch.randn(4, 2)
    field = objective.field(wave)
    assert torch.equal(field(x, torch.full((4,), 0.5)), torch.cos(x) * 0.5)
    assert sample(Heun(field), x, torch.linspace(0, 1, 5)).isfinite().all()
    sde = SDE.of(objective.scored(wave), Constant(1.0))
    with pytest.raises(ValueError, match="without noise there is no score and no SDE: solve the ODE of the velocity"):
        sample(EulerMaruyama(sde), x, torch.linspace(0.1, 0.9, 5))
    with pytest.raises(ValueError, match=r"SDE.of takes a function \(x, t\) -> \(velocity, score\)"):
        sample(EulerMaruyama(SDE.of(field, Constant(1.0))), x, torch.linspace(0.1, 0.9, 5))  # type: ignore[arg-type]


def test_infinite_ends_are_reported_on_a_device_too() -> None:
    x, times = torch.empty(2, 1, device="meta"), torch.linspace(0, 1, 3)
    objective = Bridging(Bridge())
    with pytest.raises(ValueError, match="the velocity is not finite at t = 0, "):
        sample(Heun(objective.field(wave)), x, times)
    with pytest.raises(ValueError, match="the velocity is not finite at t = 0, "):
        sample(EulerMaruyama(SDE.of(objective.scored(wave), Constant(1.0))), x, times)
    assert sample(EulerMaruyama(SDE.of(objective.scored(wave), Constant(1.0))), x, times[1:]).device.type == "meta"


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # of torch 2.13's jvp, by itself
@pytest.mark.parametrize("bridge", [Bridge(), Curved()], ids=repr)
def test_losses_are_the_same_in_every_mode_and_precision(bridge: TwoSided) -> None:
    x, source, z, t = batch(4)
    for antithetic in (False, True):
        objective = Bridging(bridge, antithetic)
        loss = objective(wave, x, source, z, t)
        for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
            with mode():
                torch.testing.assert_close(objective(wave, x, source, z, t), loss)
        alone = lambda x, source, z, t: objective(wave, x[None], source[None], z[None], t[None])[0]  # noqa: B023, E731
        torch.testing.assert_close(torch.func.vmap(alone)(x, source, z, t), loss)
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(objective(wave, leaf, source, z, t).sum(), leaf)
        torch.testing.assert_close(torch.func.vmap(torch.func.grad(alone))(x, source, z, t), expected)
        with torch.device("meta"):
            assert torch.equal(objective(wave, x, source, z, t), loss)
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            seen: list[tuple[torch.dtype, torch.dtype]] = []

            def model(x_t: Tensor, t: Tensor) -> Tensor:
                seen.append((x_t.dtype, t.dtype))  # noqa: B023
                return wave(x_t, t)

            half = [value.to(dtype) for value in (x, source, z, t)]
            rough = objective(model, *half)
            assert rough.dtype == torch.float32
            torch.testing.assert_close(rough.double(), loss, rtol=0.1, atol=0.1)
            assert set(seen) == {(dtype, torch.float32)}
            assert objective.field(wave)(half[0], half[3].float()).dtype == torch.float32
    image = torch.randn(3, 3, 2, 2, 2)
    together = Bridging(bridge)(wave, image[0], image[1], image[2], torch.tensor([0.2, 0.8, 0.5]))
    assert together.shape == (3,)


def test_wrong_shapes_and_paths_are_refused_in_one_line() -> None:
    x, t = torch.randn(3, 4, 2, 2), torch.rand(3)
    objective = Bridging(Bridge())
    said = r"the model must return drift and noise in twice the channels of x, got \(3, {}, 2, 2\) for x \(3, 4, 2, 2\)"
    networks: list[tuple[Field, int]] = [(lambda x, t: x, 4), (lambda x, t: x.repeat(1, 3, 1, 1)[:, :7], 7)]
    for model, channels in networks:
        for call in (
            lambda model=model: objective(model, x, x, x, t),
            lambda model=model: objective.field(model)(x, t),
            lambda model=model: objective.scored(model)(x, t),
        ):
            with pytest.raises(ValueError, match=said.format(channels)):
                call()
    with pytest.raises(ValueError, match="in twice the channels of x"):
        objective(lambda x, t: x.repeat(2), t, t, t, t)
    with pytest.raises(ValueError, match="states must have one shape"):
        objective(wave, x, x[:, :1], x, t)
    with pytest.raises(ValueError, match=r"t must have shape \(3,\)"):
        objective(wave, x, x, x, t[:1])
    with pytest.raises(
        ValueError, match=r"Bridging takes a two-sided path, such as Bridge; got Linear\(\): use Matching"
    ):
        Bridging(Linear())  # type: ignore[arg-type]
    for one_sided in (Matching, Hybrid):
        with pytest.raises(
            ValueError, match=r"takes a path from noise to data, such as Linear; got Bridge.*use Bridging"
        ):
            one_sided(Bridge())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="LossCurve takes a path from noise to data"):
        LossCurve.measure(wave, Bridge(), x, x, t)  # type: ignore[arg-type]


def test_a_sit_with_twice_the_channels_predicts_drift_and_noise() -> None:
    network = SiT(
        input_size=4, patch_size=2, in_channels=3, hidden_size=16, depth=1, num_heads=2, num_classes=0, learn_sigma=True
    )
    x, source, z = torch.randn(3, 2, 3, 4, 4)
    t = torch.tensor([0.3, 0.6])
    loss = Bridging(Bridge())(network.full, x, source, z, t).mean()
    (gradient,) = torch.autograd.grad(loss, network.final_layer.linear.weight)
    assert gradient.shape == (2 * 3 * 4, 16)
    assert gradient.abs().amax(1).min() > 0  # of all channels
    velocity, score = Bridging(Bridge()).scored(network.full)(x, t)
    assert velocity.shape == score.shape == x.shape


def test_the_attributes_of_the_network_are_forwarded() -> None:
    class Network:
        jumps = (0.3,)

        def __init__(self, scale: Tensor):
            self.scale = scale

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            return torch.cat([x, self.scale[:, None] * x], 1)

        def rows(self, index: Tensor) -> "Network":
            return Network(self.scale[index])

    objective, x, t = Bridging(Bridge()), torch.randn(4, 2), torch.full((4,), 0.3)
    scored: Any = objective.scored(Network(torch.arange(4.0)))
    index = torch.tensor([2, 0])
    for fields in ((scored, scored.rows(index)), (scored.velocity, scored.velocity.rows(index))):
        whole, some = (torch.stack([*field(x, t)]) for field in fields[:1]), fields[1](x[index], t[index])
        expected = next(whole)
        found = torch.stack([*some])
        torch.testing.assert_close(found, expected[:, index] if expected.ndim == 3 else expected[index])
        assert fields[0].jumps == (0.3,)


def images(count: int, *sides: int) -> tuple[Tensor, Tensor]:
    x, noise = torch.randn(2, count, 3, *sides, generator=torch.Generator().manual_seed(0))
    return x + 10, noise  # all values of x are larger than those of the noise


def test_masked_tiles_are_noise_that_is_independent_of_the_mask() -> None:
    x, noise = images(4_000, 8, 6)
    masked = sources.Masked(hidden=0.3)
    source, mask = masked(x, noise), masked.mask(noise)
    assert mask.shape == (4_000, 1, 8, 6)
    hidden = mask.expand_as(x)
    assert torch.equal(source[~hidden], x[~hidden])
    assert (source[hidden] < 6).all()
    assert float(mask.double().mean()) == pytest.approx(0.3, abs=0.01)
    tiles = mask[:, 0].unfold(1, 2, 2)[..., 0]  # two rows to a tile
    assert torch.equal(tiles, mask[:, 0].unfold(1, 2, 2)[..., 1])
    assert float(torch.corrcoef(tiles[:, :2, 0].double().T)[0, 1]) == pytest.approx(0, abs=0.06)
    values = source[:, 0, 0, 0][mask[:, 0, 0, 0]]  # where the noise has decided
    ranks = torch.special.ndtr(values).sort().values
    distance = (ranks - torch.linspace(0, 1, len(ranks))).abs().max()  # of Kolmogorov and Smirnov
    assert float(distance) < 1.63 / math.sqrt(len(ranks))


@pytest.mark.parametrize("sides", [(8, 8), (3, 5), (1,), (4, 4, 2)])
@pytest.mark.parametrize(
    "coupling", [sources.Masked(), sources.Masked(0.5, 2), sources.Coarse(1, 0.1), sources.Noisy(0.5)]
)
def test_a_source_depends_on_its_sample_only(coupling: Coupling, sides: tuple[int, ...]) -> None:
    x, noise = images(5, *sides)
    whole = coupling(x, noise)
    assert whole.shape == x.shape
    assert torch.equal(coupling(x[3:], noise[3:]), whole[3:])
    assert coupling(x[:0], noise[:0]).shape == (0, 3, *sides)
    torch.testing.assert_close(torch.func.vmap(lambda x, noise: coupling(x[None], noise[None])[0])(x, noise), whole)
    with torch.device("meta"):
        assert torch.equal(coupling(x, noise), whole)


def test_all_or_nothing_is_hidden_at_the_ends_of_the_probability() -> None:
    x, noise = images(20, 8, 8)
    torch.testing.assert_close(sources.Masked(1.0)(x, noise), noise, rtol=0, atol=1e-5)
    assert torch.equal(sources.Masked(0.0)(x, noise), x)


def test_coarse_images_are_the_means_of_blocks() -> None:
    x, noise = images(3, 8, 4)
    coarse = sources.Coarse(4)(x, noise)
    torch.testing.assert_close(coarse[:, :, 5, 2], x[:, :, 4:, :].mean((2, 3)))
    torch.testing.assert_close(sources.Coarse(4)(coarse, noise), coarse)
    pooled = torch.nn.functional.avg_pool2d(x, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(sources.Coarse(2, 0.1)(x, noise), pooled + 0.1 * noise)
    torch.testing.assert_close(sources.Noisy(0.1)(x, noise), x + 0.1 * noise)
    assert sources.Noisy(0.1)(x[:, 0, 0, 0], noise[:, 0, 0, 0]).shape == (3,)


def test_sources_that_do_not_fit_are_refused() -> None:
    x, noise = images(2, 6, 6)
    with pytest.raises(ValueError, match=r"sides of images must be multiples of 4, got \(6, 6\)"):
        sources.Coarse(4)(x, noise)
    for coupling in (sources.Masked(), sources.Coarse(2), sources.Noisy()):
        with pytest.raises(ValueError, match="noise of one shape"):
            coupling(x, noise[:1])
    with pytest.raises(ValueError, match=r"give images x \(B, C, H, W\)"):
        sources.Masked()(x[:, :, 0, 0], noise[:, :, 0, 0])


def test_the_score_is_valid_for_every_coupling() -> None:
    """With a coupled source, E[z | x_t] is still -gamma times the score, here of normal states, by regression."""
    count, bridge = 200_000, Bridge(0.5)
    x, noise, z = torch.randn(3, count, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_t = bridge.mix(x, sources.Noisy(0.5)(x, noise), z, torch.tensor(0.4, dtype=torch.float64))
    slope = (x_t * z).mean() / x_t.square().mean()
    score = bridge.score_from_noise(slope[None], torch.tensor(0.4, dtype=torch.float64))
    torch.testing.assert_close(score, -1 / x_t.square().mean()[None], rtol=0.02, atol=0)
