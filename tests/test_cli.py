"""The commands of the command line."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from torch.distributed.run import get_args_parser
from typer.testing import CliRunner

from sitkit.recipes.cli import app

SMALL = ["backbone.hidden_size=16", "backbone.depth=1", "backbone.num_heads=2", "train.batch=8", "sampler.steps=3"]
SMALL += ["optimizer.lr=1e-2", "optimizer.warmup=0", "ema.decay=0.5"]
SETS = [part for setting in [*SMALL, "train.steps=24", "log.every=12"] for part in ("--set", setting)]


def sitkit(*arguments: object) -> tuple[int, str]:
    """Run a command in this process; return its exit code and its output."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    code, _ = sitkit("train", "digits", "--out", folder, *SETS)
    assert code == 0
    return folder


def test_training_writes_metrics_and_checkpoints(run: Path) -> None:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 12, 24]
    assert all(record["loss"] > 0 for record in records)
    assert (run / "checkpoints" / "step-00000024" / "ema.safetensors").is_file()
    code, said = sitkit("train", "digits", "--out", run, *SETS, "--set", "train.steps=25")
    assert code == 0
    assert "resuming after step 24" in said
    assert (run / "checkpoints" / "step-00000025" / "ema.safetensors").is_file()


@pytest.mark.parametrize(
    "settings", [[], ["sampler.kind=sde"], ["sampler.kind=sde", "sampler.w.kind=kl", "guidance.scale=4.0"]]
)
def test_samples_become_an_array(run: Path, tmp_path: Path, settings: list[str]) -> None:
    sets = [part for setting in settings for part in ("--set", setting)]
    file = tmp_path / "new" / "samples.npz"
    code, _ = sitkit("sample", run, "--samples", 7, "--seed", 3, "--out", file, *sets)
    assert code == 0
    array = np.load(file)["arr_0"]
    assert np.load(file)["labels"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert array.shape == (7, 8, 8, 3)
    assert array.dtype == np.uint8
    assert [found.name for found in file.parent.iterdir()] == ["samples.npz"]


def test_samples_become_a_grid_and_labels_can_be_chosen(run: Path, tmp_path: Path) -> None:
    assert sitkit("sample", run, "--num", 20, "--out", tmp_path / "all.png")[0] == 0
    assert sitkit("sample", run, "--num", 5, "--out", tmp_path / "three.png", "--label", "3")[0] == 0
    with Image.open(tmp_path / "all.png") as wide, Image.open(tmp_path / "three.png") as narrow:
        assert wide.width > 3 * narrow.width
    one, same, other = (tmp_path / f"{name}.npz" for name in ("one", "same", "other"))
    for file, batch, label in ((one, 512, "3"), (same, 3, "3"), (other, 512, "4")):
        assert sitkit("sample", run, "--num", 8, "--out", file, "--label", label, "--batch", batch)[0] == 0
    arrays = [np.load(file)["arr_0"].astype(int) for file in (one, same, other)]
    assert abs(arrays[0] - arrays[1]).max() <= 1
    assert abs(arrays[0] - arrays[2]).max() > 1


def test_evaluation_writes_numbers_and_one_page(run: Path) -> None:
    code, said = sitkit("evaluate", run, "--set", "evaluation.draws=2", "--set", "evaluation.num=40", "--batch", 64)
    assert code == 0
    report = json.loads((run / "report.json").read_text())
    assert list(report["numbers"]) == [
        "Frechet distance of pixels",
        "precision",
        "recall",
        "kernel distance of pixels",
        "share nearer to training than held-out",
        "share of the wanted class",
    ]
    for name, number in report["numbers"].items():
        assert name in said
        assert len(number["values"]) == 2
        assert number["mean"] == pytest.approx(sum(number["values"]) / 2)
    assert report["numbers"]["share of the wanted class"]["real"] > 0.97
    assert report["manifest"]["recipe"]["sampler"]["interval"] == [0.0, 1.0]
    page = (run / "report.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    assert len(pictures) == 5
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    assert "http" not in page


def test_likelihood_is_measured_in_bits(run: Path) -> None:
    found = []
    for extra in ([], ["--batch", 3], ["--probes", 0], ["--seed", 1], ["--probes", 2]):
        code, said = sitkit("likelihood", run, "--images", 5, *extra)
        assert code == 0
        assert "bits per dimension on 5 held-out images" in said
        found.append(json.loads((run / "likelihood.json").read_text()))
    whole, parts, exact, other, estimated = (report["bits per dimension"] for report in found)
    assert parts == pytest.approx(whole, abs=1e-4)
    assert exact == whole
    assert other != whole
    assert 3 < whole < 9
    assert estimated == pytest.approx(whole, abs=0.5)
    assert found[0]["interval"] == [1.0, 0.0]
    assert found[0]["standard error"] > 0
    assert ["signs" in report for report in found] == [
        False,
        False,
        False,
        False,
        True,
    ]  # part of the name of the results file


def test_show_prints_recipes_and_runs(run: Path) -> None:
    code, said = sitkit("show", "digits", "--set", "path.kind=vp")
    assert code == 0
    assert "interval = [0.0, 0.99999]  # auto" in said
    code, said = sitkit("show", run)
    assert code == 0
    assert "hidden_size = 16" in said


def unwritable(tmp_path: Path) -> Path:
    """Return a path below a file, which nobody can write, root included."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "below"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "digits", "--out", "{new}", "--set", "objective.predcit=noise"], "did you mean 'predict'?"),
        (["train", "digits", "--out", "{new}", "--set", "train.steps=0"], "train.steps: should be greater"),
        (["train", "digits", "--out", "{new}", "--set", "train.steps=x"], "train.steps: should be a valid integer"),
        (["train", "digits", "--out", "{new}", "--set", "backbone.num_heads=5"], "hidden_size must be divisible"),
        (["train", "digits", "--out", "{new}", "--set", "backbone.patch_size=3"], "patch_size must divide"),
        (["train", "digits", "--out", "{new}", "--set", "data.split=1.5"], "split must lie between 0 and 1"),
        (["train", "digits", "--out", "{new}", "--device", "quantum"], "--device quantum cannot be used"),
        (["train", "digit", "--out", "{new}"], "no preset 'digit' (did you mean 'digits'?)"),
        (["train", "{broken}", "--out", "{new}"], "is not TOML"),
        (["train", "digits", "--out", "{unwritable}"], "cannot be written"),
        (["train", "digits", "--out", "{run}", "--set", "seed=7"], "another recipe"),
        (["sample", "{new}", "--out", "{new}.png"], "there is no run in"),
        (["likelihood", "{new}"], "there is no run in"),
        (["sample", "{run}", "--out", "{unwritable}.png"], "cannot be written"),
        (["sample", "{run}", "--out", "{new}.jpg"], "must end in .png or .npz"),
        (["sample", "{run}", "--out", "{new}.png", "--label", "x"], "no class 'x'; known: 0, 1"),
        (
            ["sample", "{run}", "--out", "{new}.png", "--set", "train.steps=3"],
            "only sampler, guidance, compute, data.path",
        ),
        (["sample", "{run}", "--out", "{new}.png", "--set", "sampler.kind=pde"], "'ode' or 'sde'"),
        (["evaluate", "{new}"], "there is no run in"),
        (["plane", "--data", "moon", "--out", "{new}"], "no target 'moon' (did you mean 'moons'?)"),
        (["plane", "--source", "cirlces", "--out", "{new}"], "no source 'cirlces' (did you mean 'circles'?)"),
        (["plane", "--source", "ring", "--bridge", "sin", "--out", "{new}"], "no bridge 'sin' (did you mean 'sine'?)"),
        (["plane", "--bridge", "sine", "--out", "{new}"], "--bridge sine needs --source"),
        (["plane", "--out", "{unwritable}"], "cannot be written"),
        (["show", "digts"], "no preset 'digts'"),
        (["show", "{empty}"], "there is no run in"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(run: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "broken.toml").write_text("[train")
    (tmp_path / "empty").mkdir()
    places = {
        "new": tmp_path / "new",
        "broken": tmp_path / "broken.toml",
        "empty": tmp_path / "empty",
        "unwritable": unwritable(tmp_path),
        "run": run,
    }
    before = {file: file.stat().st_mtime_ns for folder in (run, tmp_path) for file in folder.rglob("*")}
    code, line = sitkit(*(argument.format(**places) for argument in arguments))
    assert code == 2, line
    assert said in line
    assert line.count("\n") == 1
    assert {file: file.stat().st_mtime_ns for folder in (run, tmp_path) for file in folder.rglob("*")} == before


def test_a_process_ends_with_one_line_and_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sitkit.recipes", "show", "digits", "--set", "objective.predcit=noise"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"sitkit: objective\.predcit: unknown key \(did you mean 'predict'\?\); known: .*\n", done.stderr
    )


def test_a_run_without_a_checkpoint_is_one_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_bytes((run / "recipe.json").read_bytes())
    code, said = sitkit("sample", tmp_path, "--out", tmp_path / "x.png")
    assert (code, "no checkpoint yet" in said) == (2, True)
    (tmp_path / "recipe.json").write_text('{"data": "digits"')
    code, said = sitkit("sample", tmp_path, "--out", tmp_path / "x.png")
    assert (code, "cannot be read" in said) == (2, True)


@pytest.mark.parametrize(
    "command", ["train", "sample", "export", "evaluate", "reference", "compare", "likelihood", "plane", "show"]
)
def test_every_help_text_has_an_example(command: str) -> None:
    code, said = sitkit(command, "--help")
    assert code == 0
    assert f"Example: sitkit {command}" in said


TAKEN_BY_TORCHRUN = {
    "--num": "the former name of --samples and --images, which scripts use",
    "--help": "after the module's name torchrun passes it on",
}
"""Options that torchrun may take as its own, and why they stay."""


def test_no_option_can_be_taken_for_one_of_torchruns() -> None:
    """Abbreviations count: torchrun looks for them in the words after the module's name, too. An old name may stay."""
    parser = get_args_parser()
    theirs = [option for action in parser._actions for option in action.option_strings]
    taken: set[str] = set()
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for one in command.get_params(typer.Context(command)):
            options = {option for option in (*one.opts, *one.secondary_opts) if option.startswith("-")}
            clashing = {option for option in options if any(other.startswith(option) for other in theirs)}
            assert options > clashing or options <= {"--help"}, (name, options)
            taken |= clashing
            for option in options - clashing:
                words = [name, option, "1"]
                assert parser.parse_args(["-m", "sitkit.recipes", *words]).training_script_args == words
    assert taken == TAKEN_BY_TORCHRUN.keys()


def test_interrupted_training_saves_a_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sitkit.recipes", "train", "digits", "--out", str(tmp_path / "run"), *SETS]
    command += ["--set", "train.steps=100000", "--set", "log.every=1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 3) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; run the same command again" in said
    assert "Traceback" not in said
    last = json.loads(metrics.read_text().splitlines()[-1])["step"]
    assert (tmp_path / "run" / "checkpoints" / f"step-{last:08d}" / "ema.safetensors").is_file()


@pytest.mark.parametrize(
    "settings",
    [
        *(
            [f"path.kind={path}", f"objective.predict={predict}"]
            for path in ("gvp", "vp")
            for predict in ("noise", "score", "data")
        ),
        ["objective.predict=score", "objective.measure=velocity", "sampler.kind=sde"],
        ["objective.predict=noise", "objective.weight=velocity", "sampler.solver=euler"],
        ["objective.predict=noise", "objective.weight=likelihood", "sampler.kind=sde", "sampler.w.kind=constant"],
        ["sampler.kind=sde", "sampler.w.kind=sine_squared", "sampler.last=none"],
        ["sampler.kind=sde", "sampler.w.kind=kl", "sampler.last=euler", "guidance.channels=1"],
        ["guidance.interval=[0.2, 0.8]"],
        # 33 million parameters:
        pytest.param(["backbone.kind=sit_s", "guidance.interval=[0.2, 0.8]"], marks=pytest.mark.slow),
        ["train.label_dropout=0.0", "guidance.scale=1.0", "sampler.interval=[0.1, 0.9]", "sampler.last_step=0.2"],
    ],
    ids=" ".join,
)
def test_every_choice_trains_and_samples(tmp_path: Path, settings: list[str]) -> None:
    small = SETS if not settings[0].startswith("backbone") else ["--set", "train.batch=2", "--set", "train.steps=2"]
    sets = [part for setting in settings for part in ("--set", setting)]
    code, said = sitkit(
        "train", "digits", "--out", tmp_path, *small, *sets, "--set", "sampler.steps=2", "--set", "train.steps=2"
    )
    assert code == 0, said
    code, said = sitkit("sample", tmp_path, "--num", 2, "--out", tmp_path / "x.npz")
    assert code == 0, said
