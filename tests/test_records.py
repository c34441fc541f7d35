"""Files of a run: metrics, checkpoints, EMAs, and the estimate of a dry run."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from marks import slow_unless
from sitkit.recipes.cli import app
from sitkit.recipes.experiment.packaged import presets
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.experiment.recipe import Recipe
from sitkit.recipes.network.checkpoint_weights import read_ema
from sitkit.recipes.network.ema import exponent
from sitkit.recipes.runs.run import Run
from sitkit.recipes.storage import checkpoints
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.training.batches import Batches
from sitkit.recipes.training.cost_estimate import forward_macs
from sitkit.recipes.training.learning_rate import learning_rate
from sitkit.recipes.training.loop import train
from sitkit.recipes.training.process_group import ProcessGroup
from sitkit.recipes.training.state import TrainingState
from sitkit.recipes.training.step import TrainingStep

CPU = torch.device("cpu")
TINY = ["backbone.hidden_size=16", "backbone.depth=1", "backbone.num_heads=2", "train.batch=8", "sampler.steps=2"]
TINY += ["grid.every=100", "log.every=100", "checkpoint.every=100", "optimizer.warmup=2", "optimizer.lr=1e-2"]
SPEED = ("seconds", "images_per_second", "teraflops", "memory_gib")


def tiny(steps: int, *settings: str) -> Recipe:
    return read_recipe("digits", [*TINY, f"train.steps={steps}", *settings])


def quiet(line: str) -> None:
    """Ignore a message."""


def records(folder: Path) -> list[dict[str, Any]]:
    """Return the logged metrics of a run without its speed."""
    return [{key: value for key, value in record.items() if key not in SPEED} for record in Run(folder).metrics()]


def recorded_steps(folder: Path) -> list[int]:
    return [checkpoints.step_of(checkpoint) for checkpoint in checkpoints.list_checkpoints(folder / "checkpoints")]


def sitkit(*arguments: object) -> tuple[int, str]:
    """Run a command in this process; return its exit code and its output."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_records_are_means_since_the_last_by_parts_of_time(tmp_path: Path) -> None:
    recipe = tiny(6, "log.every=4", "log.bins=5", "train.interval=[0.3, 1.0]")
    train(recipe, tmp_path, CPU, quiet)
    split, group = recipe.data.build(), ProcessGroup()
    state = TrainingState(recipe, split, group)
    step, batches = TrainingStep(recipe, split, state, group), Batches(recipe, split, group)
    losses, times, norms = [], [], []
    for number in range(1, 7):
        (piece,) = batches(number)
        losses.append(step.losses(piece).detach().double())
        times.append(piece.t)
        norms.append(step(number, [piece]).gradient)
    found = Run(tmp_path).metrics()
    assert [record["step"] for record in found] == [1, 4, 6]
    for record, window in zip(found, (slice(0, 1), slice(1, 4), slice(4, 6)), strict=True):
        loss, t = torch.cat(losses[window]), torch.cat(times[window])
        assert record["loss"] == pytest.approx(float(loss.mean()), rel=1e-9)
        by_hand = [loss[(k / 5 <= t) & (t < (k + 1) / 5)] for k in range(5)]
        assert record["loss_by_t"] == [pytest.approx(float(part.mean())) if len(part) else None for part in by_hand]
        assert record["loss_by_t"][0] is None
        assert record["gradient"] == pytest.approx(sum(norms[window]) / len(norms[window]))
        assert (record["images"], record["skipped"]) == (8 * record["step"], 0)
        assert record["lr"] == learning_rate(recipe, record["step"])


@pytest.mark.parametrize("survivor", [3, 6, 9])
def test_an_interrupted_logging_window_is_recorded_completely(tmp_path: Path, survivor: int) -> None:
    recipe = tiny(11, "log.every=5", "checkpoint.every=3", "checkpoint.keep=9")
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    train(recipe, straight, CPU, quiet)
    shutil.copytree(straight, cut)
    for step in recorded_steps(cut):
        if step > survivor:
            shutil.rmtree(cut / "checkpoints" / checkpoints.name(step))
    train(recipe, cut, CPU, quiet)
    assert records(cut) == records(straight)
    assert [record["step"] for record in records(cut)] == [1, 5, 10, 11]


@pytest.mark.parametrize(
    ("settings", "steps", "left"),
    [
        (["checkpoint.every=1", "checkpoint.keep=2", "checkpoint.milestone=3"], 8, [3, 6, 7, 8]),
        (["checkpoint.every=2", "checkpoint.keep=1", "checkpoint.milestone=4"], 9, [4, 8, 9]),
        (["checkpoint.every=2", "checkpoint.keep=1"], 7, [7]),
        (["checkpoint.every=2"], 9, [6, 8, 9]),
    ],
)
def test_the_newest_checkpoints_stay_and_milestones(
    tmp_path: Path, settings: list[str], steps: int, left: list[int]
) -> None:
    train(tiny(steps, *settings), tmp_path, CPU, quiet)
    assert recorded_steps(tmp_path) == left
    assert len([*(tmp_path / "checkpoints").iterdir()]) == len(left)
    for checkpoint in checkpoints.list_checkpoints(tmp_path / "checkpoints"):
        checkpoints.verify(checkpoint)


class Asks(nn.Module):
    """A backbone that reads values of its input, which meta tensors do not have."""

    def __init__(self, *, input_size: int, in_channels: int, num_classes: int, by: str = "item"):
        super().__init__()
        self.linear = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        self.by = by

    def forward(self, x: Tensor, t: Tensor, /, y: Tensor | None = None) -> Tensor:
        output: Tensor = self.linear(x) * float(t.sum().item() if self.by == "item" else t.numpy().sum())
        return output


def test_records_contain_the_speed(tmp_path: Path) -> None:
    recipe = tiny(3, "log.every=1")
    train(recipe, tmp_path, CPU, quiet)
    macs = forward_macs(recipe, (1, 8, 8), 10)
    for record in Run(tmp_path).metrics():
        assert record.keys() == {"step", "images", "loss", "loss_by_t", "gradient", "skipped", "lr", *SPEED}
        assert record["teraflops"] == pytest.approx(6 * macs * record["images_per_second"] / 1e12, rel=1e-3)
        assert record["seconds"] > 0
        assert 0.01 < record["memory_gib"] < 100


@pytest.mark.parametrize("by", ["item", "numpy"])
def test_a_network_whose_flops_cannot_be_counted_trains(tmp_path: Path, by: str) -> None:
    small = ["train.steps=2", "train.batch=8", "log.every=1", "sampler.steps=2"]
    recipe = read_recipe("digits", [f"backbone.kind={__name__}:Asks", f"backbone.by={by}", *small])
    with pytest.raises(UserError, match="shapes alone"):
        forward_macs(recipe, (1, 8, 8), 10)
    train(recipe, tmp_path, CPU, quiet)
    for record in Run(tmp_path).metrics():
        assert "teraflops" not in record
        assert record["images_per_second"] > 0


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("averaged") / "run"
    settings = ["ema.decay=0.5", "ema.more=[0.9]", "ema.widths=[0.06, 0.1, 0.2]"]
    train(tiny(40, *settings, "checkpoint.every=8", "checkpoint.keep=9"), folder, CPU, quiet)
    return folder


def test_emas_follow_their_formulae_in_training(tmp_path: Path, averaged: Path) -> None:
    train(tiny(40, "ema.decay=0.5", "checkpoint.every=1", "checkpoint.keep=99"), tmp_path, CPU, quiet)
    state = TrainingState(tiny(40), tiny(40).data.build(), ProcessGroup())
    first = {name: value.double() for name, value in state.network.state_dict().items()}
    expected = dict.fromkeys(("ema", "ema-0.9", "width-0.06", "width-0.1", "width-0.2"), first)
    for k, checkpoint in enumerate(checkpoints.list_checkpoints(tmp_path / "checkpoints"), 1):
        weights = checkpoints.load(checkpoint, "model")
        decays = {"ema": min(0.5, (1 + k) / (10 + k)), "ema-0.9": min(0.9, (1 + k) / (10 + k))}
        for name, old in expected.items():
            beta = decays[name] if name in decays else (1 - 1 / k) ** (exponent(float(name[6:])) + 1)
            expected[name] = {key: beta * old[key] + (1 - beta) * value.double() for key, value in weights.items()}
    for name, values in expected.items():
        for key, value in read_ema(Run(averaged).latest(), name).items():
            torch.testing.assert_close(value.double(), values[key], rtol=1e-4, atol=1e-6)


def test_a_width_that_was_not_tracked_is_near_one_that_was(tmp_path: Path, averaged: Path) -> None:
    train(tiny(40, "ema.decay=0.5", "ema.widths=[0.13]"), tmp_path, CPU, quiet)
    tracked, last = read_ema(Run(tmp_path).latest(), "width-0.13"), Run(averaged).latest()

    def distance(name: str) -> float:
        pairs = [(value, tracked[key]) for key, value in read_ema(last, name).items() if key != "pos_embed"]
        return float(sum((mine - theirs).double().square().sum() for mine, theirs in pairs) ** 0.5)

    assert distance("width-0.13") < distance("width-0.1") / 10 < distance("width-0.2") / 10


@pytest.mark.parametrize("name", ["ema", "ema-0.9", "width-0.1", "width-0.13"])
def test_samples_use_any_ema(averaged: Path, tmp_path: Path, name: str) -> None:
    arrays = []
    for average in ("ema", name):
        file = tmp_path / f"{average}.npz"
        code, said = sitkit("sample", averaged, "--num", 10, "--out", file, "--average", average)
        assert code == 0, said
        assert "far from" not in said
        arrays.append(np.load(file)["arr_0"].astype(int))
    assert (abs(arrays[0] - arrays[1]).max() > 0) == (name != "ema")


@pytest.mark.parametrize("name", ["ema-0.8", "width-wide", "width-0.29", "width-nan", "model", "meters", "em", "../x"])
def test_missing_emas_are_refused_with_one_line(averaged: Path, tmp_path: Path, name: str) -> None:
    code, said = sitkit("sample", averaged, "--num", 2, "--out", tmp_path / "x.npz", "--average", name)
    assert code == 2
    (line,) = said.strip().splitlines()
    if name in ("width-0.29", "width-nan"):
        assert "must lie between 0 and 1/sqrt(12)" in line
    else:
        assert f"no EMA '{name}'; known: ema, ema-0.9, width-0.06, width-0.1, width-0.2, and width- with" in line


def test_without_widths_none_is_made(tmp_path: Path) -> None:
    train(tiny(2), tmp_path, CPU, quiet)
    with pytest.raises(UserError, match=r"no EMA 'width-0.1'; known: ema$"):
        read_ema(Run(tmp_path).latest(), "width-0.1")
    with pytest.raises(UserError, match=r"ema\.widths"):
        tiny(2, f"ema.widths=[{12**-0.5}]")
    tiny(2, "ema.widths=[0.28867]")


@pytest.mark.parametrize("preset", [slow_unless(name in ("digits", "imagenet256-s"), name) for name in presets()])
def test_a_dry_run_prints_what_training_would_take(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where there are no data
    code, said = sitkit("train", preset, "--dry-run")
    assert code == 0, said
    assert re.search(r"in all, at most about +\d+\.\d\d [MG]iB$", said.strip())
    assert not [*tmp_path.iterdir()]
