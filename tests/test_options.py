"""Every option of a recipe: each kind of each component trains and samples; bad combinations are refused."""

from collections.abc import Callable
from functools import cache

import pytest
import torch

from sitkit.recipes.experiment import slots
from sitkit.recipes.experiment.auto_values import resolve_auto, resolve_sampler, time_grid
from sitkit.recipes.experiment.components import ComponentSlot
from sitkit.recipes.experiment.overrides import recipe_from_table
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.experiment.recipe import Recipe
from sitkit.recipes.network.build import build_network, load_network
from sitkit.recipes.runs.run import Run
from sitkit.recipes.sampling.generator import SampleGenerator, generate
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.training.batches import Batches
from sitkit.recipes.training.loop import train
from sitkit.recipes.training.process_group import ProcessGroup
from sitkit.recipes.training.state import TrainingState
from sitkit.recipes.training.step import TrainingStep

CPU = torch.device("cpu")
TINY = ["backbone.hidden_size=16", "backbone.depth=1", "backbone.num_heads=2", "train.batch=8", "sampler.steps=5"]
TINY += ["optimizer.warmup=0", "train.steps=2", "checkpoint.every=2", "grid.every=2"]
FIELDS = {
    **{("path", kind): ["objective.kind=bridging"] for kind in ("bridge", "sine_bridge", "quadratic_bridge")},
    ("objective", "bridging"): ["path.kind=bridge"],
    **{
        ("source", kind): ["path.kind=bridge", "objective.kind=bridging"]
        for kind in ("masked", "coarse", "noisy", "digits")
    },
    ("coupling", "optimal_transport"): ["train.coupling.block=4", "train.coupling.classwise=true"],
    ("objective", "hybrid"): ["backbone.learn_sigma=true"],
    ("w", "kl_eta"): ["sampler.w.eta=0.5"],
    ("w", "window"): ["sampler.w.w.kind=kl_eta", "sampler.w.w.eta=0.5", "sampler.w.interval=[0.2,0.6]"],
    ("solver", "learned_ancestral"): ["objective=hybrid", "backbone.learn_sigma=true", "path=ddpm"],
}
"""What a kind needs beside it."""


def tiny(*settings: str) -> Recipe:
    return read_recipe("digits", [*TINY, *settings])


def first_loss(recipe: Recipe) -> torch.Tensor:
    """Return the loss of the first step, before it is taken."""
    split, group = recipe.data.build(), ProcessGroup()
    step = TrainingStep(recipe, split, TrainingState(recipe, split, group), group)
    return step.backward(Batches(recipe, split, group)(1)).mean()


def kinds(slot: ComponentSlot, key: str) -> list[tuple[str, str, str]]:
    return [(slot.name, key, kind) for kind in slot.kinds()]


OPTIONS = [
    *kinds(slots.PATH, "path"),
    *kinds(slots.OBJECTIVE, "objective"),
    *(("source", "source", kind) for kind in ("masked", "coarse", "noisy", "digits")),  # others need files
    *kinds(slots.QUANTITY, "objective.predict"),
    *kinds(slots.QUANTITY, "objective.measure"),
    *kinds(slots.LOSS_WEIGHT, "objective.weight"),
    *kinds(slots.TIMES, "train.times"),
    *kinds(slots.COUPLING, "train.coupling"),
    *kinds(slots.SOLVER, "sampler.solver"),
    *kinds(slots.DIFFUSION, "sampler.w"),
    *kinds(slots.TIME_GRID, "sampler.times"),
    *(("last", "sampler.last", kind) for kind in ("none", "euler", "tweedie", "mean")),
    ("ode", "sampler.solver", "exponential"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """A function that trains with settings, once for all tests with the same ones."""

    @cache
    def run(*settings: str) -> Run:
        folder = tmp_path_factory.mktemp("trained")
        train(tiny(*settings), folder, CPU, lambda line: None)
        return Run(folder)

    return run


@pytest.mark.parametrize(("name", "key", "kind"), OPTIONS)
def test_every_kind_trains_and_samples(name: str, key: str, kind: str, trained: Callable[..., Run]) -> None:
    chosen = f"{key}={kind}" if name in ("quantity", "last") else f"{key}.kind={kind}"
    settings = [chosen, *FIELDS.get((name, kind), [])]
    stochastic = name == "w" or kind == "mean" or (name == "solver" and slots.is_stochastic(slots.SOLVER.find(kind)))
    recipe = tiny(*(["sampler.kind=sde"] if stochastic else []), *settings)
    run = trained(*(setting for setting in settings if not setting.startswith("sampler.")))
    assert run.metrics()[-1]["step"] == 2
    split = recipe.data.build()
    network = load_network(recipe, split, run.latest(), CPU)
    drawn = generate(SampleGenerator(network, recipe, split, 0), 4, torch.arange(4), quiet=True)
    assert drawn.pixels.shape == (4, 1, 8, 8)


def test_samples_follow_another_path_than_the_trained_one() -> None:
    """Exponential steps depend on data and noise alone, equal on both paths; Heun has another error."""
    recipe = tiny("sampler.steps=8", "guidance.scale=1.0")
    split = recipe.data.build()
    network = build_network(recipe, split)
    for parameter in network.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))

    def drawn(*settings: str) -> torch.Tensor:
        other = recipe_from_table(recipe.model_dump(mode="json"), settings)
        return generate(SampleGenerator(network, other, split, 0), 20, torch.arange(20) % 10, quiet=True).pixels.int()

    own = drawn()
    assert (drawn("sampler.path=gvp") - own).abs().max() <= 1
    apart = [
        (drawn("sampler.solver=heun", "sampler.times=uniform", f"sampler.steps={steps}", "sampler.path=gvp") - own)
        .abs()
        .float()
        .mean()
        for steps in (8, 64)
    ]
    assert 0 < apart[1] < apart[0]
    for settings, said in (
        (("sampler.kind=sde", "sampler.w=kl_eta", "sampler.w.eta=1.0"), "computed along the path of training"),
        (("sampler.kind=sde", "sampler.solver=learned_ancestral", "objective=hybrid"), "takes the network as it was"),
    ):
        with pytest.raises(UserError, match=said):
            tiny("sampler.path=gvp", *settings)


def test_the_discrete_baseline_trains_on_its_timesteps_and_steps_through_them() -> None:
    settings = ["path=ddpm", "objective=hybrid", "backbone.learn_sigma=true", "train.times=grid", "sampler.kind=sde"]
    recipe = tiny(*settings, "sampler.solver=learned_ancestral", "sampler.steps=250", "guidance.scale=2.0")
    resolved = resolve_auto(recipe)
    assert resolved.train.interval == (0.0, 1.0)
    sampler = resolve_sampler(recipe)
    assert (sampler.interval, sampler.last) == ((0.0, 1.0), "none")
    timesteps = recipe.path.build().timestep(time_grid(sampler, recipe.path.build()))
    torch.testing.assert_close(timesteps, timesteps.round(), rtol=0, atol=1e-9)
    assert timesteps[:2].round().tolist() == [999, 995]
    assert first_loss(recipe).isfinite()


def test_a_coupling_pairs_noise_within_blocks_on_any_process() -> None:
    plain, coupled = (
        tiny(*settings) for settings in ([], ["train.coupling={kind='optimal_transport', block=4, classwise=true}"])
    )
    losses = [first_loss(recipe) for recipe in (plain, coupled)]
    assert losses[1] < losses[0]  # paired, noise lies nearer to its image


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["sampler.kind=sde"], "train.coupling must be independent"),
        (["objective.predict=score"], "train.coupling must be independent"),
        (["train.batch=6"], "block must divide train.batch"),
        (["train.coupling.blok=3"], "did you mean 'block'"),
    ],
)
def test_couplings_without_meaning_are_refused_with_one_line(settings: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        tiny("train.coupling={kind='optimal_transport', block=4, classwise=true}", *settings)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_noise_that_depends_on_the_class_is_refused() -> None:
    recipe = tiny("train.coupling={kind='optimal_transport', block=4}")
    with pytest.raises(UserError, match="classwise = true"):
        first_loss(recipe)


def test_a_learned_variance_needs_its_channels_and_its_objective() -> None:
    recipe = tiny("objective=hybrid")
    with pytest.raises(UserError, match=r"hybrid needs backbone\.learn_sigma = true"):
        build_network(recipe, recipe.data.build())
    with pytest.raises(UserError, match="needs a learned variance"):
        tiny("sampler.kind=sde", "sampler.solver=learned_ancestral")


def test_times_are_nested_and_stratified_over_the_batch() -> None:
    recipe = tiny("train.times={kind='shifted', shift=0.5, times={kind='stratified', times='logit_normal'}}")
    times = recipe.train.times.build()
    assert repr(times) == "Shifted(times=Stratified(times=LogitNormal(mean=0.0, std=1.0)), shift=0.5)"
    with pytest.raises(UserError, match="already stratified"):
        tiny("train.times={kind='stratified', times='stratified'}").train.times.build()
    with pytest.raises(UserError, match="shift must be positive"):
        tiny("train.times={kind='shifted', shift=-1.0}").train.times.build()
