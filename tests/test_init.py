"""Training from given weights: of a released file, of a run, with other classes; and recipes as JSON."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from released import CPU, convert, save, sitkit, weights
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.runs.run import Run
from sitkit.recipes.storage import checkpoints
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.training.loop import train

LABELS, HEAD = "y_embedder.embedding_table.weight", "final_layer.linear.weight"
DIGITS: dict[str, Any] = {"in_channels": 1, "input_size": 8, "num_classes": 10, "learn_sigma": False}
BACKBONE = "backbone={kind='sit', patch_size=2, hidden_size=16, depth=2, num_heads=2, time_scale=1.0}"
TINY = [BACKBONE, "train.batch=4", "train.steps=2", "sampler.steps=2", "grid.every=100", "log.every=1"]
TINY += ["checkpoint.every=100", "optimizer.warmup=0", "guidance.scale=1.0", "ema.decay=0.0"]


def sets(*settings: str) -> list[str]:
    return [word for one in settings for word in ("--set", one)]


def images(root: Path, classes: tuple[str, ...]) -> str:
    """Write a folder of grey images, and return the data of a recipe."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(np.full((8, 8, 3), 50 * label + number, np.uint8)).save(root / name / f"{number}.png")
    return f"data={{kind='folder', path='{root}', size=8}}"


def first(run: Path) -> dict[str, torch.Tensor]:
    """Return the initial weights of a run."""
    return checkpoints.load(run / "checkpoints/step-00000000", "model")


def test_a_released_file_is_trained_on(tmp_path: Path) -> None:
    state = weights(**DIGITS)
    file = save(tmp_path / "official.pt", {"ema": {f"module.{key}": value for key, value in state.items()}})
    out = tmp_path / "run"
    code, said = sitkit("train", "digits", "--out", out, *sets(*TINY, f"train.init={file}"))
    assert code == 0, said
    assert f"starting from the weights of {file}\n" in said
    started = first(out)
    assert all(torch.equal(started[key], value) for key, value in state.items())
    assert torch.equal(checkpoints.load(out / "checkpoints/step-00000000", "ema")[HEAD], state[HEAD])
    trained = checkpoints.load(Run(out).latest(), "model")
    assert not torch.equal(trained[HEAD], state[HEAD])
    torch.testing.assert_close(trained[HEAD], state[HEAD], rtol=0, atol=0.01)  # two steps of 5e-4 from there
    file.unlink()  # a run that has started resumes without it
    code, said = sitkit("train", "digits", "--out", out, *sets(*TINY, f"train.init={file}", "train.steps=3"))
    assert (code, "resuming after step 2" in said) == (0, True), said


def test_another_run_with_other_classes_is_trained_on(tmp_path: Path) -> None:
    base, three = images(tmp_path / "two", ("cat", "dog")), images(tmp_path / "three", ("ant", "bee", "fly"))
    code, said = sitkit("train", "digits", "--out", tmp_path / "base", *sets(*TINY, base))
    assert code == 0, said
    base_weights = checkpoints.load(Run(tmp_path / "base").latest(), "ema")
    init = f"train.init={tmp_path / 'base'}"
    label_table = "the label table is"
    cases = {
        "same": (base, "", set()),
        "more": (three, f"{label_table} initialised: 2 classes there, 3 here", {LABELS}),
        "renamed": (
            images(tmp_path / "other", ("x", "y")),
            f"{label_table} initialised: 2 classes there, 2 by other names here",
            {LABELS},
        ),
        "none": (f"data={{kind='folder', path='{tmp_path / 'two/cat'}', size=8}}", f"{label_table} left out", {LABELS}),
        "larger": (base.replace("size=8", "size=16"), "positions are those of 64 patches, 16 there", {"pos_embed"}),
    }
    for name, (data, remark, others) in cases.items():
        code, said = sitkit("train", "digits", "--out", tmp_path / name, *sets(*TINY, data, init))
        assert code == 0, said
        assert f"starting from the weights of {tmp_path / 'base'}{'; ' if remark else chr(10)}{remark}" in said
        started = first(tmp_path / name)
        same = {key for key, value in started.items() if key in base_weights and torch.equal(value, base_weights[key])}
        assert base_weights.keys() - same == others
        assert sitkit("sample", tmp_path / name, "--samples", 2, "--out", tmp_path / "x.npz")[0] == 0


def test_weights_of_another_network_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    base = tmp_path / "base"
    assert sitkit("train", "digits", "--out", base, *sets(*TINY))[0] == 0
    state = weights(**DIGITS)
    wide = save(tmp_path / "wide.pt", weights(**DIGITS | {"hidden_size": 32}))
    repa = save(tmp_path / "repa.pt", {"ema": state | {"projectors.0.0.weight": torch.zeros(3, 3)}})
    sigma = save(tmp_path / "sigma.pt", weights(**DIGITS | {"learn_sigma": True}))
    page = tmp_path / "page.pt"
    page.write_bytes(b"<!DOCTYPE html>")
    good = save(tmp_path / "good.pt", state)
    for settings, said in (
        ([f"train.init={wide}"], "x_embedder.proj.weight is (32, 1, 2, 2) there and (16, 1, 2, 2) here"),
        ([f"train.init={sigma}"], "final_layer.linear.weight is (8, 16) there and (4, 16) here"),
        ([f"train.init={repa}"], "--family repa"),
        ([f"train.init={page}"], "is a web page"),
        ([f"train.init={tmp_path / 'nothing.pt'}"], "there is no file"),
        ([f"train.init={tmp_path}"], "there is no run in"),
        ([f"train.init={good}", "backbone.time_scale=1000.0"], "released weights have backbone.time_scale = 1.0"),
        ([f"train.init={base}", "backbone.time_scale=1000.0"], "backbone.time_scale was 1.0 and is 1000.0"),
        ([f"train.init={base}", "backbone.num_heads=4"], "backbone.num_heads was 2 and is 4"),
    ):
        code, line = sitkit("train", "digits", "--out", tmp_path / "new", *sets(*TINY, *settings))
        assert (code, line.count("\n")) == (2, 1), line
        assert said in line
        assert not (tmp_path / "new").exists()


def test_a_converted_run_states_how_to_continue_its_training(tmp_path: Path) -> None:
    data = images(tmp_path / "images", ("cat", "dog"))
    run = convert(tmp_path, "sit", **DIGITS | {"in_channels": 3})
    for recipe in ("digits", run.recipe_file):
        code, said = sitkit("train", recipe, "--out", run.folder)
        assert (code, said.count("\n")) == (2, 1), said
        assert f"--set train.init={run.folder}" in said
    tuned = ["train.init=" + str(run.folder), data, "train.steps=1", "train.batch=4", "grid.every=9", "sampler.steps=2"]
    code, said = sitkit("train", run.recipe_file, "--out", tmp_path / "tuned", *sets(*tuned))
    assert code == 0, said
    assert "the label table is initialised: 10 classes there, 2 here" in said
    started, released = first(tmp_path / "tuned"), checkpoints.load(run.latest(), "ema")
    assert {key for key in released if not torch.equal(started[key], released[key])} == {LABELS}


def test_a_dit_is_trained_on_from_its_file(tmp_path: Path) -> None:
    sizes = DIGITS | {"learn_sigma": True}
    file = save(tmp_path / "dit.pt", weights(**sizes))
    settings = ["backbone={kind='dit', patch_size=2, hidden_size=16, depth=2, num_heads=2}", "path=ddpm"]
    settings += ["objective=hybrid", "train.times=grid", *TINY[1:], f"train.init={file}"]
    code, said = sitkit("train", "digits", "--out", tmp_path / "run", *sets(*settings))
    assert code == 0, said
    assert torch.equal(first(tmp_path / "run")[f"network.{HEAD}"], weights(**sizes)[HEAD])


def test_initial_weights_are_compared_when_training_resumes(tmp_path: Path) -> None:
    file = save(tmp_path / "official.pt", weights(**DIGITS))
    recipe = read_recipe("digits", [*TINY, f"train.init={file}"])
    train(recipe, tmp_path / "run", CPU, lambda line: None)
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000000")
    code, said = sitkit("replay", tmp_path / "run", "--step", 1)
    assert (code, f"starting from the weights of {file}" in said) == (0, True), said
    loss = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])["loss"]
    assert f"step 1: loss {loss:.4g}"[:16] in said
    save(file, weights(5, **DIGITS))
    code, said = sitkit("replay", tmp_path / "run", "--step", 1)
    assert (code, "has other weights than those that" in said) == (2, True)
    shutil.rmtree(tmp_path / "run/checkpoints")
    with pytest.raises(UserError, match="has other weights than those that"):
        train(recipe, tmp_path / "run", CPU, lambda line: None)


def test_recipe_json_is_a_recipe(tmp_path: Path) -> None:
    code, said = sitkit("train", "digits", "--out", tmp_path / "one", *sets(*TINY))
    assert code == 0, said
    recipe = tmp_path / "one/recipe.json"
    assert read_recipe(str(recipe)) == Run(tmp_path / "one").recipe()
    assert sitkit("show", recipe) == sitkit("show", tmp_path / "one")
    assert sitkit("train", recipe, "--dry-run", "--processes", 1)[0] == 0
    code, said = sitkit("train", recipe, "--out", tmp_path / "two")
    assert code == 0, said
    assert (tmp_path / "two/recipe.json").read_bytes() == recipe.read_bytes()
    code, said = sitkit("train", recipe, "--out", tmp_path / "one", "--set", "train.steps=3")
    assert (code, "trained 3 steps" in said) == (0, True)
    (tmp_path / "x.json").write_text("[]")
    for name, words in (("none.json", "there is no file"), ("x.json", "holds no recipe")):
        code, said = sitkit("train", tmp_path / name, "--out", tmp_path / "new")
        assert (code, said.count("\n"), words in said) == (2, 1, True)
    table = json.loads(recipe.read_text()) | {"path": {"kind": "no_such_module_at_all:Path"}}
    (tmp_path / "evil.json").write_text(json.dumps(table))
    code, said = sitkit("train", tmp_path / "evil.json", "--out", tmp_path / "new")
    assert (code, "is code outside of sitkit" in said) == (2, True), said
    code, said = sitkit("train", tmp_path / "evil.json", "--out", tmp_path / "new", "--trust")
    assert (code, "cannot be imported" in said) == (2, True), said
