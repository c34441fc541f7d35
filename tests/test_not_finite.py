"""Losses that are not finite, lost data, foreign recipes and checkpoints: no bad step is taken silently."""

import itertools
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from forked import assert_resumes, error_line, finish, good, together, words
from launching import assert_same
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.runs.run import Run
from sitkit.recipes.storage import checkpoints
from sitkit.recipes.training.batches import Batches
from sitkit.recipes.training.process_group import ProcessGroup
from sitkit.recipes.training.state import TrainingState
from sitkit.recipes.training.step import TrainingStep

pytestmark = pytest.mark.slow

SOMETIMES = ["log.every=1", "objective.kind=faulty:Sometimes", "objective.numbers=[20, 17]"]  # two of step 3
IN_A_ROW = ["objective.kind=faulty:Sometimes", "objective.numbers=[10, 25, 39, 47]"]  # of steps 2, 4, 5 and 6


def copies(parts: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {f"{part}.{key}": value.clone() for part, values in parts.items() for key, value in values.items()}


@pytest.mark.parametrize("fault", ["loss", "gradient"])
def test_a_step_that_is_skipped_changes_nothing(fault: str) -> None:
    recipe = read_recipe("digits", [*words(Path(), *SOMETIMES)[5::2], "optimizer.clip=1.0"])
    split, group = recipe.data.build(), ProcessGroup()
    state, batches = TrainingState(recipe, split, group), Batches(recipe, split, group)
    take_step = TrainingStep(recipe, split, state, group)
    outcomes = [take_step(step, batches(step)) for step in (1, 2)]
    assert [outcome.nonfinite for outcome in outcomes] == [None, None]
    before = copies(state.state_dicts())
    if fault == "gradient":  # of a loss that is finite
        weight = next(state.network.parameters())
        handle = weight.register_hook(lambda gradient: gradient * torch.inf)  # type: ignore[no-untyped-call]
        assert take_step(4, batches(4)).nonfinite == ()
        handle.remove()
    else:
        assert take_step(3, batches(3)).nonfinite == (17, 20)
    after = copies(state.state_dicts())
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert all(parameter.grad is None for parameter in state.network.parameters())
    assert take_step(5, batches(5)).nonfinite is None
    assert any(
        not torch.equal(before[key], value) for key, value in copies(state.state_dicts()).items() if "ema" in key
    )


def test_skipped_steps_are_reported_and_training_continues(tmp_path: Path) -> None:
    straight, run, log = tmp_path / "straight", tmp_path / "run", tmp_path / "log"
    assert finish(words(straight, *SOMETIMES), log) == 0, log.read_text()
    records: list[dict[str, Any]] = Run(straight).skipped()
    assert [(record["step"], record["samples"], record["gradient"]) for record in records] == [(3, [17, 20], "nan")]
    metrics = Run(straight).metrics()
    assert [(record["skipped"], record["loss"] is None) for record in metrics[:4]] == [
        (0, False), (0, False), (1, True), (0, False)
    ]  # fmt: skip
    assert finish(words(run, *SOMETIMES, "checkpoint.every=3"), log, ("signals", 3, signal.SIGTERM)) == 130
    assert_resumes(run, straight, log, *SOMETIMES)
    for step in (3, 6):
        said = tmp_path / f"said{step}"
        assert finish(["replay", str(run), "--step", str(step), "--trust"], said) == 0, said.read_text()
        lines = said.read_text().splitlines()
        numbers = range((step - 1) * 8, step * 8)
        rows = {int(line.split()[0]): line.split()[-1] for line in lines if line.split()[0].isdigit()}
        assert sorted(rows) == [*numbers]
        assert {number for number, loss in rows.items() if loss == "nan"} == ({17, 20} if step == 3 else set())
        assert [*rows][:2] == [17, 20] or step == 6  # the worst loss first


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_all_processes_skip_a_step_that_went_wrong_for_one(tmp_path: Path, mode: str) -> None:
    """Sample 20 belongs to the second process."""
    straight, run, log = tmp_path / "straight", tmp_path / "run", tmp_path / "log"
    settings = ["objective.kind=faulty:Sometimes", "objective.numbers=[20]", f"compute.parallel={mode}", "log.every=1"]
    assert together(2, words(straight, *settings), log) == [0, 0], log.read_text()
    for steps in (3, 7):
        assert together(2, words(run, *settings, steps=steps), log) == [0, 0], log.read_text()
    assert_same(straight, run)
    for folder in (straight, run):
        assert [(record["step"], record["samples"]) for record in Run(folder).skipped()] == [(3, [20])]


def test_sharded_weights_are_saved_before_the_first_step(tmp_path: Path) -> None:
    """The first two steps are skipped, so the optimizer has no moments yet."""
    straight, run, log = tmp_path / "straight", tmp_path / "run", tmp_path / "log"
    settings = ["objective.kind=faulty:Sometimes", "objective.numbers=[0, 8]", "compute.parallel=fsdp", "log.every=1"]
    assert together(2, words(straight, *settings, steps=4), log) == [0, 0], log.read_text()
    for steps in (2, 4):
        assert together(2, words(run, *settings, steps=steps), log) == [0, 0], log.read_text()
    assert_same(straight, run)
    assert [record["step"] for record in Run(run).skipped()] == [1, 2]


def test_patience_is_limited_and_saved_with_checkpoints(tmp_path: Path) -> None:
    straight, run, log, second = (tmp_path / name for name in ("straight", "run", "log", "second"))
    assert finish(words(straight, *IN_A_ROW), log) == 0, log.read_text()
    assert [record["step"] for record in Run(straight).skipped()] == [2, 4, 5, 6]
    assert finish(words(run, *IN_A_ROW, "train.patience=3", steps=4), log) == 0, log.read_text()
    for _ in range(2):  # the same again
        assert finish(words(run, *IN_A_ROW, "train.patience=3"), second) == 2, second.read_text()
        line = error_line(second)
        assert line.startswith("sitkit: loss or gradient were not finite in 3 steps in a row, the last of which is 6")
        assert f"`sitkit replay {run} --step 6`" in line
        assert good(run) == [2, 4]
        second.unlink()
    assert_resumes(run, straight, log, *IN_A_ROW)


def test_a_file_that_is_lost_while_training(tmp_path: Path) -> None:
    images, log = tmp_path / "images", tmp_path / "log"
    images.mkdir()
    for number in range(12):
        Image.new("RGB", (8, 8), (20 * number, 255 - 20 * number, 7)).save(images / f"{number:02}.png")
    settings = ["data.kind=folder", f"data.path={images}", "data.size=8"]
    assert finish(words(tmp_path / "straight", *settings), log) == 0, log.read_text()
    for workers in (0, 2):
        run, said = tmp_path / f"run{workers}", tmp_path / f"said{workers}"
        content = (images / "05.png").read_bytes()
        fault = ("lose", 5 - workers, str(images / "05.png"))  # the workers are ahead by this many steps
        assert finish(words(run, *settings, f"compute.workers={workers}"), said, fault) == 2
        assert error_line(said) == f"sitkit: {images}/05.png cannot be opened: No such file or directory"
        assert good(run)[-1] >= 4 - workers
        (images / "05.png").write_bytes(content)
        assert_resumes(run, tmp_path / "straight", log, *settings)


def test_foreign_recipes_networks_and_steps_are_refused(tmp_path: Path) -> None:
    run, other, log = tmp_path / "run", tmp_path / "other", itertools.count()

    def refused(*settings: str) -> str:
        said = tmp_path / f"said{next(log)}"
        assert finish(words(run, *settings), said) == 2
        return error_line(said)

    for folder, width in ((run, 16), (other, 32)):
        assert finish(words(folder, f"backbone.hidden_size={width}", steps=4), tmp_path / "log") == 0
    before = (run / "recipe.json").read_bytes()
    assert "another recipe; give another --out, or undo: optimizer.lr" in refused("optimizer.lr=0.5")
    assert (run / "recipe.json").read_bytes() == before
    shutil.copytree(other / "checkpoints/step-00000004", run / "checkpoints/step-00000006")
    manifest = run / "checkpoints/step-00000006/manifest.json"
    assert finish(words(run, steps=4), tmp_path / "renamed") == 0  # a checkpoint under the name of another is damaged
    assert f"{manifest} is damaged (it is of step 4)" in (tmp_path / "renamed").read_text()
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"step": 6}))
    assert f"{manifest.parent} holds another network" in refused()
    for file, line in ((run / "metrics.jsonl", "{nothing}\n"), (run / "recipe.json", "{")):
        file.write_text(line)
        shutil.rmtree(manifest.parent, ignore_errors=True)
        assert str(file) in refused()
    checkpoints.verify(run / "checkpoints/step-00000004")


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_steps_may_be_raised_only_where_the_learning_rate_does_not_know(tmp_path: Path, schedule: str) -> None:
    run, log, settings = tmp_path / "run", tmp_path / "log", [f"optimizer.schedule={schedule}", "log.every=1"]
    assert finish(words(run, *settings, steps=3), log) == 0
    code = finish(words(run, *settings), log)
    if schedule == "constant":
        assert code == 0
        assert finish(words(tmp_path / "straight", *settings), tmp_path / "log") == 0
        assert_same(tmp_path / "straight", run)
    else:
        assert code == 2
        assert error_line(log).endswith("holds a run of another recipe; give another --out, or undo: train.steps")
        assert good(run) == [2, 3]
