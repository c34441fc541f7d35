"""Laws of training times and couplings."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sitkit.backbones import Mixture
from sitkit.interpolants import Linear
from sitkit.objectives import (
    Grid,
    LogitNormal,
    Matching,
    OptimalTransport,
    Shifted,
    Stratified,
    Times,
    Uniform,
    independent,
)
from sitkit.samplers import KL, SDE, EulerMaruyama, Heun, Keyed, Mean, Sigma, grids, sample
from worlds import RING

TIMES: list[Times] = [
    Uniform(),
    Stratified(),
    LogitNormal(-0.4, 0.8),
    Shifted(shift=0.3),
    Shifted(LogitNormal(), 3.0),
    Stratified(LogitNormal(0.5)),
    Grid(10),
]


def uniforms(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("times", TIMES, ids=repr)
def test_times_lie_in_the_unit_interval_at_the_ends_too(times: Times) -> None:
    ends = torch.tensor([0.0, 2.0**-24, 0.5, 1 - 2.0**-24])
    for t in (times(uniforms(1000)), times(ends), times(ends.double())):
        assert ((t >= 0) & (t <= 1)).all()
    assert times(ends.bfloat16()).isfinite().all()
    assert times(ends[:0]).shape == (0,)
    assert times(ends).dtype == torch.float32


@pytest.mark.parametrize("times", [times for times in TIMES if not isinstance(times, Stratified)], ids=repr)
def test_stratified_times_are_distributed_as_without(times: Times) -> None:
    batches = torch.cat([Stratified(times)(uniforms(16, seed)) for seed in range(500)]).sort().values
    alone = times(uniforms(8000)).sort().values
    assert (batches - alone).abs().mean() < 0.01


def test_each_stratum_has_its_row() -> None:
    t = Stratified()(uniforms(64))
    assert torch.equal((t * 64).floor(), torch.arange(64.0))
    torch.testing.assert_close(t * 64 - torch.arange(64.0), uniforms(64), rtol=0, atol=1e-4)
    last = Stratified()(torch.full((300,), 1 - 2.0**-24))[-1]
    assert 0.99999 < last < 1


def test_stratification_lowers_the_variance_of_the_mean_loss() -> None:
    objective, count = Matching(Linear()), 64
    means: dict[str, list[float]] = {"uniform": [], "stratified": []}
    for seed in range(400):
        generator = torch.Generator().manual_seed(seed)
        x = RING.draw(count, generator).float()
        eps, u = torch.randn(count, 2, generator=generator), torch.rand(count, generator=generator)
        for name, times in (("uniform", Uniform()), ("stratified", Stratified())):
            # a network that does not predict the noise: its loss depends on time
            means[name].append(float(objective(lambda x_t, t: -3 * t[:, None] * x_t, x, eps, times(u)).mean()))
    spread = {name: float(torch.tensor(values).var()) for name, values in means.items()}
    assert spread["stratified"] < 0.75 * spread["uniform"]
    assert sum(means["stratified"]) / 400 == pytest.approx(sum(means["uniform"]) / 400, rel=0.05)


@given(st.floats(0.01, 50), st.floats(0.001, 0.999))
def test_a_shift_multiplies_the_ratio_of_noise_to_signal(shift: float, t: float) -> None:
    (shifted,) = Shifted(shift=shift)(torch.tensor([t], dtype=torch.float64))
    assert float((1 - shifted) / shifted) == pytest.approx(shift * (1 - t) / t, rel=1e-9)
    sigma = shift * (1 - t) / (1 + (shift - 1) * (1 - t))  # SD3, eq. 23
    assert float(shifted) == pytest.approx(1 - sigma, rel=1e-9)


def test_times_and_grids_have_the_same_shift() -> None:
    u = torch.linspace(0, 1, 9, dtype=torch.float64)
    for shift in (0.25, 1.0, 3.0):
        torch.testing.assert_close(Shifted(Uniform(), shift)(u), grids.shifted(Linear(), 8, shift=shift))
    assert float(Shifted(Uniform(), 3.0)(torch.tensor([0.5]))) == 0.25


def test_logit_normal_times_have_normal_logits() -> None:
    logits = torch.logit(LogitNormal(-0.4, 0.8)(uniforms(50_000).double()))
    assert logits.mean() == pytest.approx(-0.4, abs=0.02)
    assert logits.std() == pytest.approx(0.8, abs=0.02)


def test_grid_times_are_those_of_the_chain() -> None:
    t = Grid(10)(uniforms(5000))
    values, counts = torch.unique(t, return_counts=True)
    torch.testing.assert_close(values, torch.arange(10) / 10)
    assert (counts - 500).abs().max() < 100


def test_times_rise_with_their_uniforms_and_are_made_of_one_another() -> None:
    u = torch.linspace(0.001, 0.999, 99)
    for times in (Uniform(), LogitNormal(0.3, 2.0), Shifted(shift=0.3), Shifted(LogitNormal(), 3.0)):
        assert (times(u).diff() > 0).all()
    t = LogitNormal()(u)
    torch.testing.assert_close(Shifted(LogitNormal(), 3.0)(u), t / (3 - 2 * t))
    assert (LogitNormal(), Shifted(), Grid()) == (LogitNormal(0.0, 1.0), Shifted(Uniform(), 1.0), Grid(1000))
    assert Grid(1)(u).abs().max() == 0


def test_distributions_refuse_bad_arguments() -> None:
    for mean in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="LogitNormal takes"):
            LogitNormal(mean, 1.0)
    for std in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match="LogitNormal takes"):
            LogitNormal(0.0, std)
    for shift in (0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="shift must be"):
            Shifted(shift=shift)
    with pytest.raises(ValueError, match="towards the noise"):
        Shifted(shift=2.0, towards="data")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps must be"):
        Grid(0)
    for inner in (Stratified(), Shifted(Stratified(), 2.0)):  # would leave most of the unit interval out
        with pytest.raises(ValueError, match="is already stratified"):
            Stratified(inner)
    with pytest.raises(ValueError, match="block must be"):
        OptimalTransport(0)


@given(st.integers(1, 6), st.integers(0, 999))
def test_transport_is_the_best_of_all_pairings(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, eps = torch.randn(2, count, 1, 2, generator=generator)
    paired = OptimalTransport(count)(x, eps)
    best = min(float((x - eps[list(order)]).square().sum()) for order in itertools.permutations(range(count)))
    assert float((x - paired).square().sum()) == pytest.approx(best, rel=1e-5)


def test_blocks_do_not_see_one_another_and_classes_keep_to_themselves() -> None:
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 24, 3, generator=generator)
    y = torch.randint(3, (24,), generator=generator)
    for coupling in (OptimalTransport(8), OptimalTransport(8, classwise=True)):
        together = coupling(x, eps, y)
        blocks = [coupling(*(v[k : k + 8] for v in (x, eps, y))) for k in (0, 8, 16)]
        assert torch.equal(together, torch.cat(blocks))
    for label in range(3):
        before, after = (v[y == label].flatten().sort().values for v in (eps, OptimalTransport(24, True)(x, eps, y)))
        assert torch.equal(before, after)
    assert torch.equal(independent(x, eps, y), eps)
    assert torch.equal(OptimalTransport(24)(x, eps, y), OptimalTransport(24)(x, eps))


def test_transport_takes_scalars_empty_batches_and_any_precision() -> None:
    x, eps = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    paired = OptimalTransport(6)(x, eps)
    assert torch.equal(paired[x.argsort()], eps.sort().values)  # on a line the best pairing keeps the order
    assert torch.equal(
        OptimalTransport(6, classwise=True)(x[:, None], eps[:, None], y)[:, 0].sort().values, eps.sort().values
    )
    assert OptimalTransport(3)(x[:0], eps[:0], y[:0]).shape == (0,)
    assert OptimalTransport(3, True)(x[:0, None], eps[:0, None], y[:0]).shape == (0, 1)
    assert OptimalTransport(6)(x.bfloat16(), eps.bfloat16()).dtype == torch.bfloat16
    with torch.inference_mode():
        assert torch.equal(OptimalTransport(6)(x, eps), paired)


def test_transport_waits_once_for_all_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[tuple[int, ...]] = []
    plain = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda self: (moved.append(tuple(self.shape)), plain(self))[1])  # type: ignore[func-returns-value]
    x, eps = torch.randn(2, 64, 3, generator=torch.Generator().manual_seed(0))
    OptimalTransport(8)(x, eps)
    OptimalTransport(8, classwise=True)(x, eps, torch.arange(64) % 3)
    assert moved == [(8, 8, 8), (8, 8, 8), (64,)]


def test_transport_refuses_bad_arguments() -> None:
    x = torch.randn(6, 2)
    for coupling, arguments in (
        (OptimalTransport(4), (x, x)),
        (OptimalTransport(6), (x, x[:5])),
        (OptimalTransport(6, classwise=True), (x, x)),
        (OptimalTransport(6, classwise=True), (x, x, torch.zeros(5))),
    ):
        with pytest.raises(ValueError, match=r"multiple of|labels of shape"):
            coupling(*arguments)


def test_under_transport_the_ode_stays_right_and_every_sde_goes_wrong() -> None:
    """Normal data, for which transport pairs x = mean + std eps: the velocity is known, and is not that of a score."""
    mean, std, path = 1.0, 0.3, Linear()
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(2, 512, 1, generator=generator, dtype=torch.float64)
    x, eps = mean + std * block[0], block[1]
    paired = OptimalTransport(512)(x, eps)
    assert (x - mean - std * paired).abs().mean() < 0.05

    def velocity(x_t: Tensor, t: Tensor) -> Tensor:
        t = t[:, None]
        eps = (x_t - t * mean) / (t * std + 1 - t)
        return mean + (std - 1) * eps

    noise = torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    times = torch.cat([torch.linspace(0.01, 0.96, 200), torch.ones(1)]).double()
    start = 0.01 * mean + (0.99 + 0.01 * std) * noise
    assert sample(Heun(velocity), start, times).std() == pytest.approx(std, rel=0.03)
    exact = Mixture.isotropic(torch.tensor([[mean]]), std).velocity(path)
    for w in (Sigma(path), KL(path, 0.5)):
        keyed = Keyed(0, torch.arange(4000))
        right, wrong = (SDE(field, path, w) for field in (exact, velocity))
        assert sample(EulerMaruyama(right, keyed), start, times, Mean(right)).std() == pytest.approx(std, rel=0.06)
        assert abs(float(sample(EulerMaruyama(wrong, keyed), start, times, Mean(wrong)).std()) / std - 1) > 0.2
