"""EMA of the weights: recursions equal their sums, and EMAs of other widths are rebuilt from saved ones."""

import copy
import functools
import itertools
import math
from collections.abc import Iterator, Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sitkit.recipes.experiment.recipe import EMA, width_name
from sitkit.recipes.network.ema import (
    WIDEST,
    EMAWeights,
    Profile,
    coefficients,
    decays,
    exponent,
    exponential,
    inner_product,
    misfit,
    power,
    reconstruct,
    relative_width,
)
from sitkit.recipes.support.errors import UserError

WIDTHS = (0.05, 0.1)


def shares(decay_of: list[float]) -> Tensor:
    """Return the weight of every step in the EMA after the last one, by the recursion, (steps,) float64."""
    share = torch.zeros(len(decay_of), dtype=torch.float64)
    for step, decay in enumerate(decay_of):
        share *= decay
        share[step] += 1 - decay
    return share


@functools.cache
def powers(width: float, steps: int) -> Tensor:
    return shares([power(exponent(width), step) for step in range(1, steps + 1)])


def walk(seed: int, steps: int, start: float = 3.0, numbers: int = 2000) -> Tensor:
    """Return a random walk of weights of length about one and far from zero, (steps, numbers) float64."""
    generator = torch.Generator().manual_seed(seed)
    moves = torch.randn(steps, numbers, generator=generator, dtype=torch.float64)
    return start + moves.cumsum(0) / math.sqrt(steps)


def stored_profiles(steps: int, count: int) -> list[Profile]:
    return [(steps * (i + 1) // count, width) for i in range(count) for width in WIDTHS]


def error(trajectory: Tensor, count: int, width: float) -> float:
    steps = len(trajectory)
    snapshots = {one: {"w": powers(one[1], one[0]) @ trajectory[: one[0]]} for one in stored_profiles(steps, count)}
    made = reconstruct(snapshots, (steps, width))["w"]
    return float((made - powers(width, steps) @ trajectory).square().mean().sqrt())


@given(st.floats(0.001, 0.288))
def test_width_and_exponent_are_inverse(width: float) -> None:
    assert exponent(width) > 0
    assert relative_width(exponent(width)) == pytest.approx(width, rel=1e-8)


@pytest.mark.parametrize(("gamma", "published"), [(6.94, 0.10), (16.97, 0.05)])
def test_exponents_are_those_of_the_paper(gamma: float, published: float) -> None:
    assert exponent(published) == pytest.approx(gamma, abs=0.01)


@pytest.mark.parametrize("width", [0.0, -0.1, WIDEST, 0.2888, 1.0])
def test_widths_out_of_range_are_refused(width: float) -> None:
    with pytest.raises(UserError, match="width"):
        exponent(width)


@pytest.mark.parametrize("width", [0.02, 0.1, 0.25])
def test_the_recursion_is_the_profile(width: float) -> None:
    steps, gamma = 200, exponent(width)
    ends = (torch.arange(steps + 1, dtype=torch.float64) / steps) ** (gamma + 1)
    torch.testing.assert_close(powers(width, steps), ends.diff(), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("width", [0.02, 0.1, 0.25])
def test_the_spread_of_the_recursion_comes_to_the_width(width: float) -> None:
    errors = []
    for steps in (100, 400, 1600):
        share, when = powers(width, steps), torch.arange(1, steps + 1, dtype=torch.float64) / steps
        mean = share @ when
        errors.append(abs(float((share @ (when - mean) ** 2).sqrt()) / width - 1))
    assert errors[2] < errors[0] / 4 < 0.003


def test_inner_products_are_integrals() -> None:
    steps = 5_000
    for one, other in [((5_000, 0.05), (5_000, 0.05)), ((3_000, 0.05), (5_000, 0.2)), ((2_250, 0.1), (2_000, 0.1))]:
        p, q = (torch.zeros(steps, dtype=torch.float64) for _ in range(2))
        for density, (step, width) in ((p, one), (q, other)):
            density[:step] = powers(width, step)
        assert inner_product(one, other) == pytest.approx(float(p @ q), rel=1e-3)
        assert inner_product(one, other) == inner_product(other, one)


def test_the_decay_of_short_runs() -> None:
    assert [exponential(0.9999, step) for step in (1, 8, 10**6)] == [2 / 11, 0.5, 0.9999]
    assert power(5.0, 1) == 0.0


@pytest.mark.parametrize("width", [0.03, 0.07, 0.15, 0.2])
@pytest.mark.parametrize("seed", [0, 1])
def test_an_unsaved_width_is_rebuilt_and_better_from_more_saved_ones(width: float, seed: int) -> None:
    trajectory = walk(seed, 512)
    spread = float((trajectory[-1] - powers(width, 512) @ trajectory).square().mean().sqrt())  # average and last
    errors = [error(trajectory, count, width) / spread for count in (2, 4, 8, 16)]
    assert all(more < fewer / 1.3 for fewer, more in itertools.pairwise(errors))
    assert errors[0] < 0.4
    assert errors[3] < 0.03
    misfits = [misfit(stored_profiles(512, count), (512, width)) for count in (2, 4, 8, 16)]
    assert misfits == sorted(misfits, reverse=True)


def test_coefficients_that_add_up_to_one_beat_those_that_need_not() -> None:
    """The unconstrained least squares of EDM2 lose a part of the initial weights."""
    trajectory, profiles, wanted = walk(0, 512, start=0.0), stored_profiles(512, 4), (512, 0.15)
    gram = torch.tensor([[inner_product(one, other) for other in profiles] for one in profiles])
    free = torch.linalg.solve(gram.double(), torch.tensor([inner_product(one, wanted) for one in profiles]).double())
    snapshots = torch.stack([powers(width, step) @ trajectory[:step] for step, width in profiles])
    of_free = float((free @ snapshots - powers(0.15, 512) @ trajectory).square().mean().sqrt())
    assert error(trajectory, 4, 0.15) < of_free / 2
    assert sum(coefficients(profiles, wanted)) == pytest.approx(1, abs=1e-12)


@given(st.integers(0, 7), st.integers(1, 4))
def test_a_saved_ema_is_rebuilt_exactly(chosen: int, count: int) -> None:
    profiles = stored_profiles(1000, count)
    chosen %= len(profiles)
    c = coefficients(profiles, profiles[chosen])
    assert c == pytest.approx([float(i == chosen) for i in range(len(profiles))], abs=1e-9)
    assert misfit(profiles, profiles[chosen]) < 1e-6


def test_an_ema_at_an_earlier_step_is_rebuilt() -> None:
    trajectory = walk(0, 512)
    snapshots = {one: {"w": powers(one[1], one[0]) @ trajectory[: one[0]]} for one in stored_profiles(512, 16)}
    made = reconstruct(snapshots, (300, 0.1))["w"]
    average = powers(0.1, 300) @ trajectory[:300]
    assert (made - average).square().mean() < 0.1**2 * (trajectory[299] - average).square().mean()


class OneByOne(Mapping[Profile, Mapping[str, Tensor]]):
    """Snapshots that are read on access."""

    def __init__(self, states: dict[Profile, dict[str, Tensor]]):
        self.states, self.asked = states, list[Profile]()

    def __getitem__(self, key: Profile) -> dict[str, Tensor]:
        self.asked.append(key)
        return self.states[key]

    def __iter__(self) -> Iterator[Profile]:
        return iter(self.states)

    def __len__(self) -> int:
        return len(self.states)


def test_state_dicts_keep_their_types_and_are_read_once() -> None:
    buffer = torch.rand(3)
    states = {
        one: {"w": torch.full((2,), float(i)), "half": torch.ones(1).half(), "count": torch.tensor(one[0]), "b": buffer}
        for i, one in enumerate(stored_profiles(100, 2))
    }
    lazy = OneByOne(states)
    made = reconstruct(lazy, (100, 0.07))
    assert lazy.asked == sorted(states)
    assert {name: value.dtype for name, value in made.items()} == {n: v.dtype for n, v in states[50, 0.05].items()}
    assert made["count"] == 100
    torch.testing.assert_close(made["b"], buffer)
    assert made["half"] == 1


def test_impossible_emas_are_refused_with_one_line() -> None:
    for profiles, wanted, text in [
        ([], (1, 0.1), "differ"),
        ([(5, 0.1), (5, 0.1)], (5, 0.1), "differ"),
        ([(5, 0.1)], (0, 0.1), "from 1"),
        ([(5, 0.1)], (6, 0.1), "needs one stored then or later"),
    ]:
        with pytest.raises(UserError, match=text):
            coefficients(profiles, wanted)
    with pytest.raises(UserError, match="another network"):
        reconstruct({(1, 0.1): {"a": torch.ones(1)}, (2, 0.1): {"b": torch.ones(1)}}, (2, 0.1))


def test_a_recipe_names_its_emas() -> None:
    ema = EMA(decay=0.999, more=(0.9, 0.99), widths=(0.05,))
    named = decays(ema)
    assert [*named] == ["ema", "ema-0.9", "ema-0.99", width_name(0.05)]
    assert [decay(10**6) for decay in named.values()] == [0.999, 0.9, 0.99, power(exponent(0.05), 10**6)]
    for twice in (EMA(decay=0.9, more=(0.9,)), EMA(more=(0.5, 0.5)), EMA(widths=(0.1, 0.1))):
        with pytest.raises(UserError, match="each decay and width once"):
            decays(twice)


def test_emas_of_a_network_follow_their_recursions() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    first = [p.detach().double().clone() for p in network.parameters()]
    averages = EMAWeights.of(EMA(decay=0.3, more=(0.8,), widths=WIDTHS), lambda: copy.deepcopy(network))
    history = []
    for step in range(1, 7):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        averages.update(step, network.parameters())
        history.append([p.detach().double().clone() for p in network.parameters()])
    for name, decay in averages.decays.items():
        share = shares([decay(step) for step in range(1, 7)])
        rest = 1 - share.sum()
        for i, mine in enumerate(averages.modules[name].parameters()):
            expected = rest * first[i] + sum(part * state[i] for part, state in zip(share, history, strict=True))
            torch.testing.assert_close(mine, expected.float(), rtol=1e-5, atol=1e-5)
            assert not mine.requires_grad
        assert (rest < 1e-12) == name.startswith("width")  # which forget the initial weights
    assert not any(module.training for module in averages.modules.values())


def test_emas_are_restored_from_a_checkpoint() -> None:
    network = nn.Linear(2, 2)
    averages = EMAWeights.of(EMA(widths=WIDTHS), lambda: copy.deepcopy(network))
    saved = {name: {key: t.clone() for key, t in state.items()} for name, state in averages.state_dicts().items()}
    averages.update(2, [torch.randn(2, 2), torch.randn(2)])
    assert not torch.equal(averages.state_dicts()["ema"]["weight"], saved["ema"]["weight"])
    averages.load(saved)
    for name, state in averages.state_dicts().items():
        assert all(torch.equal(value, saved[name][key]) for key, value in state.items())
    with pytest.raises(KeyError):
        averages.load({"ema": saved["ema"]})
