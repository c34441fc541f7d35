"""`sitkit.recipes` in Python: functions equal the commands, and a run is a velocity with its path."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from sitkit.interpolants import GVP
from sitkit.recipes import TrainedRun, UserError, evaluate, load_recipe, load_run, sample, train
from sitkit.recipes.cli import app
from sitkit.recipes.support.random_streams import Stream, uniforms
from sitkit.samplers import Counted, Euler, bits_per_dimension, dequantise, log_likelihood, plan
from sitkit.samplers import sample as solve

SETTINGS = {"train.steps": 20, "checkpoint.every": 20, "train.batch": 32, "path": "gvp", "evaluation.num": 20}
SETTINGS |= {"optimizer.lr": 0.02, "optimizer.warmup": 0}  # or labels would hardly matter
EULER = {"sampler": {"solver": "euler", "times": "uniform", "steps": 3, "last": "none", "interval": [0.1, 1.0]}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    said: list[str] = []
    trained = train(load_recipe("digits", SETTINGS), tmp_path_factory.mktemp("python") / "run", say=said.append)
    assert said[-1].startswith("trained 20 steps")
    return trained


def test_settings_are_a_mapping_or_pairs() -> None:
    pairs = ["train.steps=4", "path=gvp", "sampler.w={kind='sigma', scale=2.0}"]
    mapping = {"train": {"steps": 4}, "path": "gvp", "sampler.w": {"kind": "sigma", "scale": 2.0}}
    assert load_recipe("digits", pairs) == load_recipe("digits", mapping)
    with pytest.raises(ValueError, match=r"got the text 'train.steps=4'"):
        load_recipe("digits", "train.steps=4")


def test_a_run_is_resumed_and_loaded_with_its_ema_weights(run: TrainedRun) -> None:
    again = train(run.recipe, run.folder, say=lambda line: None)
    assert again.checkpoint == run.checkpoint
    weights = load_file(run.checkpoint / "ema.safetensors")
    for name, value in run.network.state_dict().items():
        assert torch.equal(value, weights[name])
    assert not run.network.training
    assert run.path == GVP()
    assert run.shape == (1, 8, 8)
    assert run.classes == tuple("0123456789")


@pytest.mark.parametrize("options", [[], ["--label", "3", "--label", "7"]])
def test_samples_are_those_of_the_command_line(run: TrainedRun, tmp_path: Path, options: list[str]) -> None:
    arguments = ["sample", str(run.folder), "--samples", "6", "--seed", "5", "--out", str(tmp_path / "x.npz"), *options]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    with np.load(tmp_path / "x.npz") as file:
        expected, labels = torch.from_numpy(file["arr_0"]).permute(0, 3, 1, 2), file["labels"]
    found = run.generate(6, seed=5, labels=["3", "7"] * 3 if options else None, batch=4)
    assert torch.equal(found.pixels.expand_as(expected), expected)
    assert found.labels is not None
    assert found.labels.tolist() == labels.tolist()
    assert torch.equal(run.sample(6, seed=5, labels=torch.from_numpy(labels)), found.pixels)
    assert torch.equal(sample(run.folder, 6, seed=5, labels=[*labels]), found.pixels)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_velocity_with_a_solver_gives_the_samples_of_the_run(run: TrainedRun, scale: float) -> None:
    by_recipe = load_run(run.folder, EULER | {"guidance.scale": scale})
    velocity = by_recipe.velocity(["1", "8", "8"], guidance=scale)
    times = torch.linspace(0.1, 1, 4, dtype=torch.float64)
    states = solve(Euler(velocity), run.noise(3, seed=2) * run.path.sigma(times[0]), times)
    expected = by_recipe.sample(3, seed=2, labels=[1, 8, 8])
    assert torch.equal(by_recipe.decode(states), expected)
    assert not torch.equal(expected, by_recipe.sample(3, seed=2, labels=0))


def test_one_label_fits_any_batch_and_none_is_unconditional(run: TrainedRun) -> None:
    x, t = run.noise(2), torch.full((2,), 0.5)
    assert torch.equal(run.velocity("4")(x, t), run.velocity([4, 4])(x, t))
    assert torch.equal(run.velocity()(x, t), run.objective.field(run.network)(x, t))
    assert not torch.equal(run.velocity()(x, t), run.velocity(4)(x, t))


def test_numbers_of_numpy_are_numbers(run: TrainedRun) -> None:
    expected = run.sample(2, seed=3, labels=[4, 5])
    n, seed, labels = np.arange(2, 4)[0], np.arange(3, 4)[0], np.array([4, 5], dtype=np.uint8)
    assert torch.equal(run.sample(n, seed=seed, labels=labels), expected)
    assert torch.equal(run.sample(1, seed=3, labels=np.array(4)), expected[:1])
    assert torch.equal(run.sample(1, seed=3, labels=labels[0]), expected[:1])


def test_the_working_directory_may_change_before_a_run_is_used(
    run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.folder.parent)
    relative = load_run(run.folder.name)
    monkeypatch.chdir(tmp_path)
    assert torch.equal(relative.sample(1), run.sample(1))


def test_a_plan_and_a_likelihood_take_the_velocity(run: TrainedRun) -> None:
    velocity = Counted(run.velocity("4"))
    planned = plan(velocity, run.path, evaluations=5)
    assert run.decode(solve(planned.solver, run.noise(2), planned.times)).shape == (2, 1, 8, 8)
    assert velocity.calls == 5
    found = log_likelihood(run.velocity("4"), run.noise(2), interval=(0.9, 0.1), rtol=1e-2, atol=1e-2)
    assert found.log_prob.isfinite().all()


@pytest.mark.parametrize("predict", ["velocity", "noise", "score", "data"])
def test_a_plan_over_the_interval_of_a_run_is_finite(run: TrainedRun, tmp_path: Path, predict: str) -> None:
    settings = {"train.steps": 1, "train.batch": 4, "path": "gvp", "objective.predict": predict}
    other = train(load_recipe("digits", settings), tmp_path / predict, say=lambda line: None)
    velocity = other.velocity("4")
    few = plan(velocity, other.path, evaluations=3, interval=other.interval)
    assert solve(few.solver, other.noise(2), few.times).isfinite().all()


def test_held_out_images_have_the_likelihood_of_the_command_line(run: TrainedRun) -> None:
    images, labels = run.heldout()
    assert images.shape == (899, 1, 8, 8)
    assert CliRunner().invoke(app, ["likelihood", str(run.folder), "--images", "2"]).exit_code == 0
    report = json.loads((run.folder / "likelihood.json").read_text())
    x = dequantise(images[:2], uniforms(0, Stream.DEQUANTISATION, torch.arange(2), (1, 8, 8)))
    found = log_likelihood(run.velocity(labels[:2]), x)
    mean = bits_per_dimension(found.log_prob.double(), 64).mean().item()
    assert mean == pytest.approx(report["bits per dimension"], abs=1e-6)


def test_evaluation_returns_the_report_that_it_writes(run: TrainedRun, tmp_path: Path) -> None:
    quick = load_run(run.folder, {"evaluation.draws": 1, "evaluation.unguided": False, "sampler.steps": 2})
    report = evaluate(quick, out=tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(report))
    assert (tmp_path / "report.html").is_file()


def test_a_missing_reference_is_refused_before_samples_are_generated(run: TrainedRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no reference"):
        evaluate(run, reference=tmp_path / "missing", out=tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_bad_input_is_refused_in_a_line(run: TrainedRun, tmp_path: Path) -> None:
    three_halves: Any = 1.5
    for act, line in (
        (lambda: load_run(tmp_path), "there is no run in"),
        (lambda: load_run(run.folder, {"path": "linear"}), "only sampler, guidance"),
        (lambda: load_recipe("digitz"), "no preset 'digitz'"),
        (lambda: run.velocity("ten"), "no class 'ten'"),
        (lambda: run.velocity([10]), "label 10 is not between 0 and 9"),
        (lambda: run.velocity(guidance=2.0), "needs labels"),
        (lambda: run.velocity(torch.tensor([1.5])), r"got 1\.5"),
        (lambda: run.velocity(torch.tensor([[1], [2]])), r"got \[1\]"),
        (lambda: run.velocity(True), "got True"),
        (lambda: run.velocity(three_halves), r"got 1\.5"),
        (lambda: run.sample(0), "n must be a whole number from 1 to"),
        (lambda: run.sample(three_halves), r"n must be .*got 1\.5"),
        (lambda: run.sample(2, seed=-1), "seed must be a whole number from 0 to"),
        (lambda: run.sample(2, batch=0), "batch must be"),
        (lambda: run.noise(2, seed=three_halves), "seed must be"),
        (lambda: evaluate(run, seed=three_halves, out=tmp_path), "seed must be"),
        (lambda: run.sample(3, labels=[1, 2]), "there are 2 labels for 3 samples"),
    ):
        with pytest.raises(UserError, match=line) as caught:
            act()
        assert "\n" not in str(caught.value)


def test_importing_recipes_takes_no_torch() -> None:
    code = "import sys, sitkit.recipes as r\nassert 'torch' not in sys.modules\nassert set(r.__all__) <= {*dir(r)}"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
