"""`sitkit study`: what is measured, written and printed."""

import base64
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from sitkit.recipes.evaluation.config import EvaluationConfig
from sitkit.recipes.evaluation.evaluate import evaluate
from sitkit.recipes.experiment.overrides import with_settings
from sitkit.recipes.runs.run import Run
from sitkit.recipes.study.statistics import Estimate
from sitkit.recipes.support.trust import TRUST_EVERYTHING
from sitkit.recipes.training.loop import train
from studies import AXES, SMALL, grid, sitkit, write


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a custom path; each part is run alone, and then the study is put together."""
    folder = tmp_path_factory.mktemp("study")
    file = write(folder / "study.toml", SMALL + AXES)
    parts = grid(folder, SMALL + AXES)
    words = [word for key in (*parts.networks, *parts.cells) for word in ("--only", key)]
    assert sitkit("study", file, "--out", folder / "out", *words)[0] == 0
    code, said = sitkit("study", file, "--out", folder / "out")
    assert code == 0
    assert "8 of 8 combinations measured" in said
    return folder


def rows(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((folder / "study.json").read_text())["rows"]
    return found


def test_rows_have_axes_seeds_nfe_and_metrics(done: Path) -> None:
    found = rows(done / "out")
    assert [(row["sampler.steps"], row["way"], row["seed"]) for row in found] == [
        (steps, way, seed) for steps in (2, 3) for way in ("usual", "own") for seed in (3, 5)
    ]
    assert [row["calls"] for row in found] == [2, 2, 2, 2, 3, 3, 3, 3]
    assert [row["network_rows"] for row in found] == [4, 4, 4, 4, 6, 6, 6, 6]  # both are guided, with different scales
    for row in found:
        report = json.loads((done / "out" / str(row["report"])).read_text())
        numbers = row["numbers"]
        assert isinstance(numbers, dict)
        for name, number in numbers.items():
            assert number == {key: report["numbers"][name][key] for key in ("mean", "spread", "values", "real")}
            assert len(number["values"]) == 2
        assert report["manifest"]["recipe"]["seed"] == row["seed"]
    assert len({json.dumps(row["numbers"]) for row in found}) >= 6  # networks of few steps may have constant outputs


def test_a_cell_equals_the_evaluation_of_its_run_and_sampler(done: Path, tmp_path: Path) -> None:
    row = rows(done / "out")[6]
    run = Run(done / "out" / "models" / str(row["network"]))
    recipe = run.recipe(TRUST_EVERYTHING)
    assert recipe.path.kind == "worlds:Quadratic"
    settings = ["sampler.steps=3", "guidance.scale=1.5", "evaluation.num=20", "evaluation.draws=2"]
    settings.append("evaluation.labels=balanced")
    recipe = with_settings(recipe, settings)
    config = EvaluationConfig(recipe.evaluation.features, None, False, 7, torch.device("cpu"), tmp_path)
    report = evaluate(run, recipe, config, seed=4_000_000)
    assert report is not None
    numbers = row["numbers"]
    assert isinstance(numbers, dict)
    for name, number in numbers.items():
        assert number["values"] == pytest.approx(report["numbers"][name]["values"], rel=1e-4), name


def test_nothing_is_written_into_the_folder_of_a_network_but_by_training(done: Path) -> None:
    for run in (done / "out" / "models").glob("*"):
        if not run.name.startswith("."):
            assert {file.name for file in run.iterdir()} <= {
                ".lock",
                "recipe.json",
                "data.json",
                "metrics.jsonl",
                "checkpoints",
                "grids",
            }


def test_the_page_holds_everything_and_plots_are_small(done: Path) -> None:
    page = (done / "out" / "study.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    assert len(pictures) == len(list((done / "out").glob("*.png"))) == 2
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    assert max(file.stat().st_size for file in (done / "out").glob("*.png")) < 300_000
    assert "http" not in page
    said = (done / "out" / "study.md").read_text()
    for table in json.loads((done / "out" / "study.json").read_text())["table"]:
        for number in table["numbers"].values():
            assert said.count(str(Estimate(number["mean"], number["standard_error"]))) >= 2
    assert said.count("**") == 2 * (1 + 2 * 2)  # in the explanation, in a number's own table, and in that of all


def test_finished_parts_are_not_repeated(done: Path) -> None:
    before = {
        file: file.stat().st_mtime_ns
        for file in (done / "out").rglob("*")
        if "cells" in file.parts or "models" in file.parts
    }
    code, said = sitkit("study", done / "study.toml", "--out", done / "out", "--jobs", 2)
    assert code == 0
    assert "networks" not in said
    key = rows(done / "out")[0]["cell"]
    assert sitkit("study", done / "study.toml", "--out", done / "out", "--only", key)[0] == 0
    after = {file: file.stat().st_mtime_ns for file in before}
    assert {file for file in before if before[file] != after[file] and file.is_file()} <= set()


def test_a_network_that_was_trained_further_is_not_measured(done: Path, tmp_path: Path) -> None:
    out = shutil.copytree(done / "out", tmp_path / "out")
    row = rows(out)[0]
    network = out / "models" / str(row["network"])
    longer = with_settings(Run(network).recipe(TRUST_EVERYTHING), ["train.steps=8"])
    train(longer, network, torch.device("cpu"), print)
    shutil.rmtree(out / "cells" / str(row["cell"]))
    code, said = sitkit("study", done / "study.toml", "--out", out, "--only", row["cell"])
    assert code == 2
    assert f"{network / 'checkpoints' / 'step-00000006'} is damaged, or was trained on" in said


def test_list_shows_open_parts_and_networks_are_shared(done: Path, tmp_path: Path) -> None:
    code, said = sitkit("study", done / "study.toml", "--out", done / "out", "--list")
    assert code == 0
    assert [line.split()[1] for line in said.splitlines()] == ["done"] * 12
    code, said = sitkit("study", done / "study.toml", "--out", tmp_path, "--list", "--models", done / "out" / "models")
    assert code == 0
    assert [line.split()[1] for line in said.splitlines()] == ["done"] * 4 + ["open"] * 8
    cell = said.splitlines()[-1].split()[0]
    code, said = sitkit("study", done / "study.toml", "--out", tmp_path, "--only", cell)
    assert code == 2
    assert re.search(r"network \w{12} is not trained: `--only \w{12}` does it", said)
    code, said = sitkit("study", done / "study.toml", "--out", tmp_path, "--list")
    assert said.splitlines()[-1].split()[1] == "failed"
    assert "is not trained" in said.splitlines()[-1]
    code, said = sitkit(
        "study", done / "study.toml", "--out", tmp_path, "--only", cell, "--models", done / "out" / "models"
    )
    assert code == 0
    assert json.loads((tmp_path / "cells" / cell / "cell.json").read_text())["calls"] == 3
    code, said = sitkit("study", done / "study.toml", "--out", tmp_path, "--list", "--models", done / "out" / "models")
    assert said.splitlines()[-1].split()[1] == "done"
    assert not list((tmp_path / "failed").iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "nothing"], "--only nothing: nothing in this study has that key; `--list` shows them"),
        (["--only", "nothing", "--list"], "give one of them"),
        (["--slurm", "a=1"], "give that, too"),
        (["--device", "cpuu"], "--device cpuu cannot be used here"),
        (["--submit", "slurm", "--slurm", "a"], "--slurm takes NAME=VALUE"),
        (["--submit", "slurm"], "--submit slurm: "),
    ],
)
def test_wrong_options_are_one_line(done: Path, tmp_path: Path, words: list[str], said: str) -> None:
    code, output = sitkit("study", done / "study.toml", "--out", tmp_path / "other", *words)
    assert code == 2
    assert said in output
    assert len(output.strip().splitlines()) == 1


def test_an_unknown_metric_is_refused_with_a_suggestion(done: Path) -> None:
    file = write(done / "other.toml", SMALL + AXES.replace("Frechet distance of pixels", "precison"))
    code, said = sitkit("study", file, "--out", done / "out")
    assert code == 2
    assert "measure.numbers: no 'precison' was measured (did you mean 'precision'?)" in said
    write(file, SMALL + AXES.replace("Frechet distance of pixels", "precision"))
    assert sitkit("study", file, "--out", done / "out")[0] == 0
    assert {name for row in rows(done / "out") for name in row["numbers"]} == {"precision", "share of the wanted class"}  # type: ignore[attr-defined]
