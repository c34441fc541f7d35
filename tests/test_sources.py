"""Sources of two-sided paths in recipes: masked, coarse and noisy images, and other data sets."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import forked
from sitkit.backbones import Mixture, MixtureBridge
from sitkit.interpolants import Bridge, Linear, TwoSided
from sitkit.objectives import Bridging, Matching, sources
from sitkit.recipes import TrainedRun, load_run
from sitkit.recipes.cli import app
from sitkit.recipes.data.images import to_states
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.experiment.recipe import Recipe
from sitkit.recipes.experiment.renamed_keys import with_old_keys
from sitkit.recipes.network.build import build_network
from sitkit.recipes.runs.run import Run
from sitkit.recipes.sampling.generator import SampleGenerator
from sitkit.recipes.sampling.manifest import identity
from sitkit.recipes.sampling.sample_folder import SampleFolder
from sitkit.recipes.sampling.solve import Start, TwoSidedStep, solve
from sitkit.recipes.storage import checkpoints
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.support.random_streams import Permutation, Stream, noise
from sitkit.recipes.training.batches import Batches, MicroBatch
from sitkit.recipes.training.loop import train
from sitkit.recipes.training.process_group import ProcessGroup
from sitkit.recipes.training.state import TrainingState
from sitkit.recipes.training.step import TrainingStep
from sitkit.samplers import SDE, Constant, EulerMaruyama, Heun, Keyed, sample

CPU = torch.device("cpu")
TINY = ["backbone.hidden_size=16", "backbone.depth=1", "backbone.num_heads=2", "train.batch=8", "log.every=1"]
TINY += ["checkpoint.every=3", "grid.every=100", "sampler.steps=4", "optimizer.warmup=1", "train.steps=6"]
BRIDGE = ["path.kind=bridge", "objective.kind=bridging"]
MASKED = [*BRIDGE, "source.kind=masked", "source.hidden=0.5"]
SHAPE = (1, 8, 8)


def tiny(*settings: str) -> Recipe:
    return read_recipe("digits", [*TINY, *settings])


def training(recipe: Recipe) -> tuple[TrainingStep, MicroBatch]:
    """Return the step of a recipe whose network is not zero, and the micro-batch of step 3."""
    split, group = recipe.data.build(), ProcessGroup()
    state = TrainingState(recipe, split, group)
    _fill(state.network)
    return TrainingStep(recipe, split, state, group), Batches(recipe, split, group)(3)[0]


def _fill(network: torch.nn.Module) -> None:
    for parameter in network.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))


def losses(*settings: str) -> tuple[Tensor, TrainingStep, MicroBatch, Tensor, Tensor]:
    """Return the losses of a step, and the noise of the path and of the source for its samples."""
    step, batch = training(tiny(*settings))
    assert batch.numbers.tolist() == [*range(16, 24)]
    z, source_noise = (noise(0, stream, batch.numbers, SHAPE) for stream in (Stream.NOISE, Stream.SOURCE))
    return step.losses(batch), step, batch, z, source_noise


@pytest.mark.parametrize("antithetic", ["false", "true"])
def test_the_loss_of_a_step_is_that_of_bridging_on_its_numbered_samples(antithetic: str) -> None:
    found, step, batch, z, source_noise = losses(*MASKED, f"objective.antithetic={antithetic}")
    source = sources.Masked(0.5)(batch.x, source_noise)
    loss = Bridging(Bridge(), antithetic == "true")
    wanted = loss(partial(step.state.network, y=batch.y), batch.x, source, z, batch.t)
    assert torch.equal(found, wanted)
    assert not torch.equal(source, batch.x)


def test_noise_is_a_source() -> None:
    found, step, batch, z, source = losses(*BRIDGE)
    assert torch.equal(found, Bridging(Bridge())(partial(step.state.network, y=batch.y), batch.x, source, z, batch.t))


def test_the_network_sees_the_source_in_further_channels() -> None:
    found, step, batch, z, source_noise = losses(*MASKED, "source.condition=true")
    source = sources.Masked(0.5)(batch.x, source_noise)
    visible = torch.where(sources.Masked(0.5).mask(source_noise), 0, batch.x)
    network = step.state.network
    field = lambda x, t: network(torch.cat([x, visible], 1), t, y=batch.y)  # noqa: E731
    assert torch.equal(found, Bridging(Bridge())(field, batch.x, source, z, batch.t))


def test_a_path_from_noise_can_be_conditioned_on_a_source() -> None:
    found, step, batch, z, source_noise = losses("source.kind=coarse", "source.std=0.5", "source.condition=true")
    coarse = sources.Coarse()(batch.x, source_noise)
    field = lambda x, t: step.state.network(torch.cat([x, coarse], 1), t, y=batch.y)  # noqa: E731
    assert torch.equal(found, Matching(Linear())(field, batch.x, z, batch.t))


def test_another_data_set_is_paired_by_sample_number() -> None:
    found, step, batch, z, _ = losses(*BRIDGE, "source.kind=digits", "source.split=0.3")
    other = tiny("data.split=0.3").data.build().training
    source = to_states(other.read(Permutation(0, len(other), Stream.SOURCE_ORDER)(batch.numbers)))
    assert torch.equal(found, Bridging(Bridge())(partial(step.state.network, y=batch.y), batch.x, source, z, batch.t))


def test_a_run_refuses_another_data_set_as_its_source(tmp_path: Path) -> None:
    recipe = tiny(*BRIDGE, "source.kind=digits", "source.split=0.3", "train.steps=1")
    train(recipe, tmp_path, CPU, lambda line: None)
    assert json.loads((tmp_path / "source.json").read_text())["training"]["number"] == len(
        tiny("data.split=0.3").data.build().training
    )
    train(recipe, tmp_path, CPU, lambda line: None)
    (tmp_path / "source.json").write_text("{}")
    with pytest.raises(UserError, match="other images of its source"):
        train(recipe, tmp_path, CPU, lambda line: None)


def test_losses_do_not_depend_on_micro_batches() -> None:
    whole = losses(*MASKED)[0]
    step, _ = training(tiny(*MASKED, "compute.gradient_accumulation=2"))
    parts = Batches(step.recipe, step.recipe.data.build(), ProcessGroup())(3)
    torch.testing.assert_close(torch.cat([step.losses(part) for part in parts]), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [[], ["source.kind=digits", "source.split=0.3"]])
def test_two_processes_reach_the_loss_of_one(tmp_path: Path, settings: list[str]) -> None:
    log, found = tmp_path / "log", []
    for processes in (1, 2):
        run = tmp_path / str(processes)
        words = forked.words(run, *MASKED, "source.condition=true", "log.every=1", "grid.every=7", *settings, steps=8)
        assert set(forked.together(processes, words, log)) == {0}, log.read_text()
        found.append(torch.tensor([record["loss"] for record in Run(run).metrics()], dtype=torch.float64))
    torch.testing.assert_close(*found, rtol=1e-6, atol=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    folder = tmp_path_factory.mktemp("run") / "run"
    train(tiny(*MASKED, "source.condition=true"), folder, CPU, lambda line: None)
    return load_run(folder, ["sampler.steps=3"])


def test_a_resumed_run_is_the_same_to_the_bit(run: TrainedRun, tmp_path: Path) -> None:
    settings = [*MASKED, "source.condition=true"]
    train(tiny(*settings, "train.steps=3"), tmp_path / "two", CPU, lambda line: None)
    train(tiny(*settings), tmp_path / "two", CPU, lambda line: None)
    for part in ("model", "ema", "optimizer"):
        one, two = (checkpoints.load(Run(folder).latest(), part) for folder in (run.folder, tmp_path / "two"))
        assert all(torch.equal(value, two[key]) for key, value in one.items())
    with pytest.raises(UserError, match=r"holds a run of another recipe.*source\.hidden"):
        train(tiny(*settings, "source.hidden=0.4"), tmp_path / "two", CPU, lambda line: None)


@pytest.mark.parametrize("settings", [[], ["sampler.kind=sde", "sampler.w=constant"], ["guidance.scale=1.0"]])
def test_a_sample_is_the_same_in_any_batch(run: TrainedRun, settings: list[str]) -> None:
    one = load_run(run.folder, ["sampler.steps=3", *settings])
    assert (one.sample(7).int() - one.sample(7, batch=3).int()).abs().max() <= 1
    assert not torch.equal(one.sample(7), one.sample(7, seed=1))


def test_a_source_is_made_of_a_held_out_image_of_the_samples_class(run: TrainedRun) -> None:
    source, labels = run.source(40, labels=torch.arange(40) % 10), torch.arange(40) % 10
    images, classes = run.heldout()
    visible = source == to_states(images)[:, None].expand(-1, 40, -1, -1, -1)  # of each image, for each sample
    matches = visible.float().mean((2, 3, 4)).argmax(0)
    assert torch.equal(classes[matches], labels)
    assert len(torch.unique(matches)) > 30
    assert not torch.equal(source, run.source(40, labels=labels, seed=1))
    assert torch.equal(source[:7], run.source(7, labels=labels[:7]))


def test_velocity_and_score_with_solvers_of_the_library_give_finite_images(run: TrainedRun) -> None:
    source, labels = run.source(4, labels=[3, 1, 4, 1]), [3, 1, 4, 1]
    condition = run.condition(4, labels=labels)
    assert ((source == condition) | (condition == 0)).all()
    times, x = torch.linspace(0.05, 0.95, 10), source + 0.05**0.5 * run.noise(4)
    velocity = run.velocity(labels, condition=condition, guidance=2.0)
    assert sample(Heun(velocity), x, times).isfinite().all()
    sde = SDE.of(run.scored(labels, condition=condition), Constant())
    assert sample(EulerMaruyama(sde, Keyed(0, torch.arange(4))), x, times).isfinite().all()
    for wrong in (lambda: run.velocity(labels), run.scored):
        with pytest.raises(UserError, match="takes condition"):
            wrong()


def test_a_folder_of_samples_records_its_sources_and_resumes(run: TrainedRun, tmp_path: Path) -> None:
    words = ["sample", str(run.folder), "--samples", "6", "--set", "sampler.steps=3"]
    for out in ("s", "s", "s.png"):
        done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / out)])
        assert done.exit_code == 0, done.output
    samples = SampleFolder.open(tmp_path / "s")
    assert torch.equal(samples.read(torch.arange(6)), run.sample(6, labels=torch.arange(6)))
    manifest = samples.content.manifest
    assert manifest["recipe"]["source"]["hidden"] == 0.5
    assert manifest["source_images"]["number"] == len(run.heldout()[0])
    assert identity(manifest)["recipe"]["source"]["condition"]


def test_an_evaluation_compares_samples_with_held_out_images(run: TrainedRun, tmp_path: Path) -> None:
    words = ["evaluate", str(run.folder), "--out", str(tmp_path), "--set", "evaluation.num=20"]
    words += ["--set", "evaluation.draws=1", "--set", "sampler.steps=2", "--set", "evaluation.unguided=false"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert "share of the wanted class" in report["numbers"]


def test_recipes_without_a_source_keep_their_digests() -> None:
    table = tiny().model_dump(mode="json")
    assert table["source"] == "noise"
    assert "source" not in with_old_keys(table)
    assert "source" in with_old_keys(tiny(*MASKED).model_dump(mode="json"))
    manifest = {"recipe": table}
    old = {"recipe": {key: value for key, value in table.items() if key != "source"}}
    assert identity(manifest) == identity(old)


KINDS = [f"path={{kind='{kind}', scale=0.5}}" for kind in ("bridge", "sine_bridge", "quadratic_bridge")]


@pytest.mark.parametrize("path", KINDS)
def test_a_step_is_exact_for_one_source_and_one_image(path: str) -> None:
    """Then drift and noise are known, and are constant along the path."""
    bridge = tiny(*BRIDGE, path).path.build()
    x, source, z = torch.randn(3, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    step = TwoSidedStep(lambda x_t, t: torch.cat([x - source, z], 1), bridge)
    times = torch.tensor([0.0, 0.3, 1.0])
    states = [bridge.mix(x, source, z, t) for t in times]
    torch.testing.assert_close(step.first(source, z, times[1]), states[1])
    for t, s in ((0, 1), (1, 2), (0, 2), (2, 1)):
        torch.testing.assert_close(step.step(states[t], times[t], times[s]), states[s])


@pytest.mark.parametrize("kind", ["ode", "sde"])
@pytest.mark.parametrize("path", KINDS)
def test_exact_fields_carry_the_source_to_the_data(path: str, kind: str) -> None:
    """With the times, solver and last step that `auto` stands for."""
    even, rows = torch.full((2,), 0.5), 2000
    source = Mixture(even, torch.tensor([[-2.0, 0], [2, 1]]), torch.eye(2).mul(0.3).expand(2, 2, 2))
    data = Mixture(even, torch.tensor([[0.0, -1], [1, 2]]), torch.tensor([[0.2, 0.1], [0.1, 0.1]]).expand(2, 2, 2))
    recipe = tiny(*BRIDGE, path, f"sampler.kind={kind}", "sampler.w=constant", "sampler.steps=25")
    exact = MixtureBridge(source, data, recipe.path.build())
    network = lambda x, t: torch.cat([exact.drift(x, t), exact.noise(x, t)], 1)  # noqa: E731
    generator = torch.Generator().manual_seed(0)
    start = Start(torch.randn(rows, 2, generator=generator), source.draw(rows, generator), None, None)
    found = solve(network, recipe, start, 0, Keyed(0, torch.arange(rows)), None)
    mean, between = torch.tensor([0.5, 0.5]), torch.tensor([0.5, 1.5])
    covariance = data.covariances[0].float() + torch.outer(between, between)
    torch.testing.assert_close(found.mean(0), mean, rtol=0, atol=0.12)
    torch.testing.assert_close(found.T.cov(), covariance, rtol=0, atol=0.15)
    assert abs(float((found[:, 1] > 0.5).float().mean()) - 0.5) < 0.04


class Vanishing(TwoSided):
    """A two-sided path without noise in the middle."""

    def alpha(self, t: Tensor) -> Tensor:
        return t

    def beta(self, t: Tensor) -> Tensor:
        return 1 - t

    def gamma(self, t: Tensor) -> Tensor:
        return t * (1 - t) * (t - 0.5) ** 2


def shrunk(x: Tensor, noise: Tensor, y: Tensor | None = None, /) -> Tensor:
    return x


class Shrunk:
    """A source of another shape."""

    def __call__(self, x: Tensor, noise: Tensor, y: Tensor | None = None, /) -> Tensor:
        return x[..., ::2]


class Narrow(torch.nn.Module):
    """A network with too few channels."""

    def __init__(self, *, input_size: int, in_channels: int, num_classes: int):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.weight * x


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["source.kind=masked"], "set path.kind = 'bridge' and objective.kind = 'bridging'; or set source.condition"),
        (["path.kind=bridge"], "set objective.kind = 'bridging'"),
        (["objective.kind=bridging"], "set path.kind = 'bridge'"),
        (["source.kind=maskd"], "did you mean 'masked'"),
        (["source={kind='noise', condition=true}"], "'noise' has no fields, got condition"),
        ([*MASKED, "source.hiden=1"], "did you mean 'hidden'"),
        ([*MASKED, "source.hidden=2.0"], "hidden must be a probability"),
        ([*BRIDGE, "source={kind='coarse', factor=3}"], "multiples of 3"),
        ([*BRIDGE, "source=mnist5k"], "states of 1 x 28 x 28, and data 'digits' of 1 x 8 x 8"),
        ([*BRIDGE, "source=test_sources:Shrunk"], "has shape"),
        ([*BRIDGE, "source=test_sources:shrunk"], "no source"),
        ([*MASKED, "train.coupling={kind='optimal_transport', block=4}"], "train.coupling must be independent"),
        ([*MASKED, "sampler.solver=exponential"], "set sampler.solver = 'auto', 'euler', 'heun'"),
        ([*MASKED, "sampler={kind='sde', solver='learned_ancestral'}"], "for the two-sided path 'bridge'"),
        ([*MASKED, "sampler.path=gvp"], "sampler.path must be 'auto'"),
        ([*MASKED, "sampler.kind=sde"], "for a two-sided path, use Constant"),
        ([*MASKED, "sampler={kind='sde', w={kind='kl_eta', eta=0.5}}"], "set another sampler.w"),
        ([*MASKED, "sampler={kind='sde', w='constant'}", "path.scale=0"], "set sampler.kind = 'ode'"),
        ([*MASKED, "guidance.channels=1"], "guidance.channels must be 'all'"),
        ([*MASKED, "path=test_sources:Vanishing"], "gamma is positive inside"),
        ([*MASKED, "backbone={kind='test_sources:Narrow'}"], "twice the channels"),
        ([*MASKED, "backbone.learn_sigma=true"], "give learn_sigma or out_channels"),
        (["source={kind='masked', condition=true}", "objective=hybrid", "path=ddpm"], "not 'hybrid'"),
    ],
)
def test_wrong_combinations_are_refused_in_a_line_by_training(settings: list[str], said: str, tmp_path: Path) -> None:
    words = [word for setting in (*TINY, *settings) for word in ("--set", setting)]
    done = CliRunner().invoke(app, ["train", "digits", "--out", str(tmp_path / "run"), *words])
    assert done.exit_code == 2, done.output
    lines = done.stderr.splitlines()
    assert len(lines) == 1, lines
    assert said in lines[0]


def test_what_needs_a_path_from_noise_is_refused_in_a_line(run: TrainedRun) -> None:
    for words, said in (
        (["likelihood", str(run.folder)], "no likelihood with source.kind = 'masked'"),
        (["tune", str(run.folder), "--over", "sampler.w", "--calls", "4"], "paths from noise without a source"),
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 2, done.output
        assert len(done.stderr.splitlines()) == 1
        assert said in done.stderr


def test_a_class_without_held_out_images_is_named() -> None:
    recipe = tiny(*MASKED)
    split = recipe.data.build()
    split.heldout.labels[split.heldout.labels == 3] = 4
    generator = SampleGenerator(build_network(recipe, split), recipe, split, 0)
    with pytest.raises(UserError, match="no image of class '3'"):
        generator(torch.arange(2), torch.tensor([3, 4]))
