"""Parts of `sitkit tune`: the bound, candidates, NFE, the search, and sampler files."""

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sitkit.interpolants import Linear
from sitkit.objectives import LossCurve
from sitkit.recipes.experiment import sampler_files, slots
from sitkit.recipes.experiment.overrides import recipe_from_table
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.experiment.recipe import Recipe
from sitkit.recipes.experiment.sampler_files import sampler_toml, with_sampler
from sitkit.recipes.study.statistics import SeedValues
from sitkit.recipes.study.study_file import Axis
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.support.trust import TRUST_EVERYTHING
from sitkit.recipes.tune import nfe_budget
from sitkit.recipes.tune.candidates import changed, read_axes, split, variant, words
from sitkit.recipes.tune.default_values import DEFAULTS
from sitkit.recipes.tune.grid_search import MOST_COMBINATIONS, combinations, search
from sitkit.recipes.tune.kl_bound import DiffusionBound, judge, kl_bound, rank_correlation
from sitkit.recipes.tune.nfe_budget import count_calls, with_steps, within
from sitkit.samplers import KL, Constant, Diffusion, OneStep, RaisedCosine, Sigma, SineSquared
from studies import write


@dataclass(frozen=True)
class Thrice(OneStep):
    """A step of Euler's method with three evaluations."""

    velocity: object

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        rows = t.expand(len(x)).to(x)
        asked = [self.velocity(x, rows) for _ in range(3)]  # type: ignore[operator]
        return x + (s - t) * torch.stack(asked).mean(0)


def digits(*settings: str) -> Recipe:
    return read_recipe("digits", settings)


@pytest.mark.parametrize("scale", [0.1, 0.5, 2.0, 5.0])
def test_the_bound_of_a_scaled_kl_has_a_closed_form(scale: float) -> None:
    curve = LossCurve([0.1, 0.5, 0.9], [1.0, 3.0, 2.0])
    least = kl_bound(KL(Linear()), Linear(), curve)
    assert kl_bound(KL(Linear(), scale), Linear(), curve) / least == pytest.approx((1 + scale) ** 2 / (4 * scale))
    assert kl_bound(KL(Linear()), Linear(), LossCurve([0.1, 0.5, 0.9], [2.0, 6.0, 4.0])) == pytest.approx(2 * least)


def test_the_least_bound_is_the_integral_of_the_loss_over_half_of_w() -> None:
    """With w = w_KL = 2 (1 - t) / t and L = 1, the integral of t / (1 - t) is -log(1 - t) - t."""
    whole = [-math.log(1 - t) - t for t in (0.2, 0.7)]
    assert kl_bound(KL(Linear()), Linear(), LossCurve([0.2, 0.7], [1.0, 1.0])) == pytest.approx(whole[1] - whole[0])


@pytest.mark.parametrize(
    "w", [Constant(0.3), Constant(3.0), Sigma(Linear()), SineSquared(2.0), RaisedCosine(0.5), KL(Linear(), 0.3)]
)
def test_the_bound_is_one(w: Diffusion) -> None:
    """Normal data and a velocity with a constant error: samples are normal with a wrong mean."""
    wrong, low, high, steps = 0.4, 0.1, 0.9, 20_000
    t = torch.linspace(low, high, steps + 1, dtype=torch.float64)[:-1]
    variance = t**2 + (1 - t) ** 2
    slope = (2 * t - 1) / variance - w(t) / (2 * variance)  # of velocity + w/2 score in the state
    # The score follows from the velocity, and errs by wrong t / (1 - t).
    drift = wrong + w(t) / 2 * wrong * t / (1 - t)
    mean = 0.0
    for a, b in zip(slope.tolist(), drift.tolist(), strict=True):
        mean += (high - low) / steps * (a * mean + b)
    divergence = mean**2 / (2 * (high**2 + (1 - high) ** 2))
    bound = kl_bound(w, Linear(), LossCurve([low, high], [wrong**2, wrong**2]))
    assert 0 < divergence < bound
    assert bound < 60 * divergence


def test_ranks() -> None:
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 1000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [9, 7, 5, -3]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert rank_correlation([1, 1, 2], [1, 1, 2]) == pytest.approx(1)
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


def bounded(name: str, bound: float, *distances: float) -> DiffusionBound:
    return DiffusionBound(name, bound, SeedValues(dict(enumerate(distances)), None))


def test_only_significant_differences_count_for_or_against_the_bound() -> None:
    a, b = bounded("a", 1.0, 0.10, 0.11, 0.12), bounded("b", 2.0, 0.20, 0.22, 0.21)
    like_b, last = bounded("c", 3.0, 0.21, 0.19, 0.22), bounded("d", 0.5, 0.40, 0.41, 0.45)
    rightly = judge([a, b, like_b])
    assert (rightly.pairs, rightly.right) == (2, 2)
    assert "ranks the w correctly: of 2 pairs" in rightly.sentence
    assert "Both have a first." in rightly.sentence
    wrongly = judge([a, b, like_b, last])
    assert (wrongly.pairs, wrongly.right) == (5, 2)
    assert "does not rank the w correctly" in wrongly.sentence
    assert "The bound has d first, and the measurement has a." in wrongly.sentence
    assert "No pair of w differs significantly" in judge([b, like_b, bounded("e", 5.0, 0.2, 0.22, 0.2)]).sentence
    assert "too few" in judge([a, b]).sentence
    endless = [bounded(name, math.inf, *one.measured.distances.values()) for name, one in (("e", a), ("f", last))]
    for order in ([a, *endless], [a, *reversed(endless)]):  # of equal bounds neither says which is better
        assert (judge(order).pairs, judge(order).right) == (1, 1)


def test_keys_and_values_are_split_outside_of_brackets_and_quotes() -> None:
    text = "sampler.w={kind = 'kl', scale = 2.0}|sigma,guidance.interval=[0.0, 0.5]|[0.1, 1.0],sampler.times"
    first, second, third = split(text, ",")
    assert split(first.partition("=")[2], "|") == ["{kind = 'kl', scale = 2.0}", "sigma"]
    assert split(second.partition("=")[2], "|") == ["[0.0, 0.5]", "[0.1, 1.0]"]
    assert third == "sampler.times"
    assert split("'a,b',c", ",") == ["'a,b'", "c"]


def test_a_w_makes_an_sde_and_none_the_ode() -> None:
    recipe = digits("sampler.solver=heun", "sampler.last=euler")
    (axis,) = read_axes(["sampler.w=ode|sigma|{kind = 'kl', scale = 0.5}|constant"], recipe, None)
    found = [changed(recipe, one) for one in axis.variants]
    assert [one.sampler.kind for one in found] == ["ode", "sde", "sde", "sde"]
    assert [words(one, ["sampler.w"]) for one in found] == [
        ("ode",),
        ("sigma scale 1",),
        ("kl scale 0.5",),
        ("constant c 1",),
    ]
    assert found[0].sampler.solver == recipe.sampler.solver
    assert found[1].sampler.solver is None


def test_recipes_of_the_same_samples_are_the_same() -> None:
    recipe = digits()
    for one, other in [
        (["sampler.w=kl"], ["sampler.w={kind = 'sigma', scale = 3.0}"]),
        (["guidance.scale=1.0", "guidance.interval=[0.2, 0.3]"], ["guidance.scale=1.0", "guidance.channels=1"]),
        (["sampler.path=linear"], []),
    ]:
        assert changed(recipe_from_table(recipe.model_dump(mode="json"), one)) == changed(
            recipe_from_table(recipe.model_dump(mode="json"), other)
        )
    assert changed(digits("guidance.scale=2.0", "guidance.interval=[0.2, 0.3]")) != changed(recipe)


@pytest.mark.parametrize("key", DEFAULTS)
@pytest.mark.parametrize("settings", [["sampler.kind=ode"], ["sampler.kind=sde"]], ids=str)
def test_default_values_can_be_used(key: str, settings: list[str]) -> None:
    recipe = digits(*settings)
    curve = LossCurve([0.5], [40.0])
    (axis,) = read_axes([key], recipe, curve)
    used = 0
    for one in axis.variants:
        try:
            found = changed(recipe, one)
        except UserError:  # solvers and last steps of the other kind
            assert key in ("sampler.solver", "sampler.last")
            continue
        assert count_calls(with_steps(found, 4), found.data.build()) >= 4
        used += 1
    assert used >= 2
    assert [one.name for one in axis.variants if "kl_eta" in one.name] == (
        ["kl_eta eta 20", "kl_eta eta 2.2"] if key == "sampler.w" else []
    )


def test_the_number_of_steps_is_the_largest_within_the_nfe() -> None:
    split_ = digits().data.build()
    exponential = 0
    for kind in [*slots.SOLVER.kinds(), "test_tune_laws:Thrice"]:
        if kind == "learned_ancestral":
            continue
        sort = "ode" if slots.solves(slots.SOLVER.find(kind, TRUST_EVERYTHING), "ode") else "sde"
        recipe = digits(f"sampler.kind={sort}", f"sampler.solver={kind}")
        for calls in (4, 13):
            found = within(recipe, split_, calls)
            assert count_calls(found, split_) <= calls
            assert count_calls(with_steps(found, found.sampler.steps + 1), split_) > calls
            exponential += kind == "exponential" and found.sampler.steps == calls
    assert exponential == 2
    assert within(digits("sampler.solver=test_tune_laws:Thrice"), split_, 13).sampler.steps == 4
    with pytest.raises(UserError, match="one step makes 3 NFE, and 2 are allowed"):
        within(digits("sampler.solver=test_tune_laws:Thrice"), split_, 2)


def test_an_nfe_that_does_not_depend_on_steps_ends_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nfe_budget, "count_calls", lambda recipe, split: 40)
    assert within(digits(), digits().data.build(), 50).sampler.steps == 50


def test_none_is_left_out_of_a_sampler_file() -> None:
    assert sampler_files._lines({"cap": None, "scale": 2.0, "w": {"kind": "kl"}}, "s") == [
        "",
        "[s]",
        "scale = 2.0",
        "",
        "[s.w]",
        'kind = "kl"',
    ]


def many(*values: int) -> list[Axis]:
    """Return axes with the given numbers of values: exponents of the times, scales of guidance, scales of w."""
    keys = ("sampler.times.exponent", "guidance.scale", "sampler.w.scale")
    return [
        Axis(key, tuple(variant(key, f"{1 + place / 8}") for place in range(count)))
        for key, count in zip(keys, values, strict=False)
    ]


def places(recipe: Recipe) -> tuple[float, float, float]:
    assert recipe.sampler.times
    return (recipe.sampler.times.fields.exponent, recipe.guidance.scale, recipe.sampler.w.fields.scale)  # type: ignore[attr-defined]


OWN = ("sampler.times={kind = 'power', exponent = 3.0}", "sampler.kind=sde", "guidance.scale=3.0")


@pytest.mark.parametrize("sizes", [(3, 4, 2), (6, 5, 4)], ids=["all combinations", "one key after the other"])
def test_the_lowest_score_is_found(sizes: tuple[int, ...]) -> None:
    axes, asked = many(*sizes), []
    assert (combinations(axes) <= MOST_COMBINATIONS) == (sizes[0] == 3)

    def score(recipe: Recipe) -> float | None:
        x, y, z = places(recipe)
        asked.append((x, y, z))
        if (x, y) == (1.25, 1.25):
            return None
        return (x - 1.25) ** 2 + (y - 1.375) ** 2 + 3 * (z - 1.125) ** 2 + 0.5 * (x - 1.25) * (y - 1.375)

    assert places(search(digits(*OWN), axes, score)) == (1.25, 1.375, 1.125)
    distinct = len(set(asked))
    assert distinct == 25 if sizes[0] == 3 else distinct < 60


def test_without_a_better_candidate_the_search_returns_the_given_recipe() -> None:
    own = digits(*OWN)
    assert search(own, many(3, 3), lambda recipe: 1.0) is own
    assert search(own, many(3, 3), lambda recipe: None if recipe is not own else 1.0) is own


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["sampler.kind=sde", "sampler.w={kind = 'kl_eta', eta = 0.5}", "guidance.interval=[0.1, 0.9]"],
        ["sampler.solver=heun", "sampler.last=none", "sampler.interval=[0.1, 0.9]", "sampler.path=gvp"],
    ],
    ids=str,
)
def test_a_sampler_survives_its_file(tmp_path: Path, settings: list[str]) -> None:
    recipe = digits(*settings)
    file = write(tmp_path / "sampler.toml", sampler_toml(recipe, ["a remark"]))
    read_back = with_sampler(digits("sampler.w=constant", "guidance.channels=1", "sampler.steps=7"), file)
    assert (read_back.sampler, read_back.guidance) == (recipe.sampler, recipe.guidance)
