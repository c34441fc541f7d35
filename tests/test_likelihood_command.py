"""`sitkit likelihood`: its report, the results that it saves, and resuming after kills."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import forked
from image_files import write_tree
from latent_caches import own
from sitkit.recipes.cli import app
from sitkit.recipes.data.images import InMemory, Split, to_pixels
from sitkit.recipes.data.lazy_images import LazyImages
from sitkit.recipes.evaluation.bits_per_dim import BatchBits, BitsEstimator
from worlds import Field


def sitkit(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def trained(folder: Path, *settings: str) -> Path:
    words = [str(word) for word in forked.words(folder, *settings, steps=4)]
    assert sitkit(*words)[0] == 0
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("bits") / "run")


def likelihood(run: Path, *options: object) -> dict[str, Any]:
    code, said = sitkit("likelihood", run, *options)
    assert code == 0, said
    report: dict[str, Any] = json.loads((run / "likelihood.json").read_text())
    assert f" bits per dimension on {report['images']} held-out images, " in said
    return report


def test_a_report_defines_its_metrics(run: Path) -> None:
    report = likelihood(run, "--num", 22, "--batch", 8, "--probes", 1)
    lines = [*(run / "likelihood").glob("*.jsonl")]
    found = [BatchBits.model_validate_json(line) for file in lines for line in file.read_bytes().splitlines()]
    numbers = torch.tensor([one for part in found for one in part.bits], dtype=torch.float64)
    labels = own_labels(run)[:22]
    assert report["images"] == len(numbers) == 22
    assert report["bits per dimension"] == pytest.approx(float(numbers.mean()), rel=1e-12)
    assert report["standard error"] == pytest.approx(float(numbers.std()) / 22**0.5, rel=1e-12)
    assert report["network calls a batch"] == sum(one.calls for one in found) / 3 > 10
    for name, part in report["classes"].items():
        mine = numbers[labels == int(name)]
        assert part["images"] == len(mine) > 0
        assert part["bits per dimension"] == pytest.approx(float(mine.mean()), rel=1e-12)
    assert sum(part["images"] for part in report["classes"].values()) == 22
    manifest = json.loads((run / "checkpoints" / "step-00000004" / "manifest.json").read_text())
    expected = {
        "interval": [1.0, 0.0],
        "probes": 1,
        "rtol": 1e-5,
        "atol": 1e-6,
        "solver": "dopri5",
        "batch": 8,
        "seed": 0,
        "checkpoint": "step-00000004",
        "average": "ema",
        "average sha256": manifest["files"]["ema.safetensors"]["sha256"],
    }
    assert expected.items() <= report.items()
    assert {"sitkit", "torch", "torchdiffeq"} <= report["versions"].keys()
    assert "dequantisation and probes" in report["standard error is"]
    assert likelihood(run, "--num", 1, "--probes", 1)["standard error"] is None


def own_labels(run: Path) -> Tensor:
    from sitkit.recipes.runs.run import Run

    labels: Tensor = Run(run).recipe().data.build().heldout.labels
    return labels


def test_only_results_of_equal_settings_are_reused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = likelihood(run, "--num", 3, "--probes", 2)
    calls: list[int] = []
    original = BitsEstimator.__call__

    def count(how: BitsEstimator, velocity: Field, pixels: Tensor, *rest: Any) -> Tensor:
        calls.append(len(pixels))
        return original(how, velocity, pixels, *rest)

    monkeypatch.setattr(BitsEstimator, "__call__", count)
    assert likelihood(run, "--num", 3, "--probes", 2) == first
    assert calls == []
    for other in (
        ["--probes", 3],
        ["--seed", 1],
        ["--batch", 63],
        ["--rtol", 1e-4],
        ["--atol", 1e-5],
        ["--average", "width-0.1"],
        ["--average", "width-0.2"],  # which is made of several
    ):
        calls.clear()
        report = likelihood(run, "--num", 3, "--probes", 2, *other)
        assert calls == [3], other
        if other[0] not in ("--batch", "--rtol", "--atol"):
            assert report["bits per dimension"] != first["bits per dimension"]
    recipe = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps({**recipe, "path": {**recipe["path"], "kind": "gvp"}}))
    calls.clear()
    likelihood(run, "--num", 3, "--probes", 2)
    assert calls == [3]
    (run / "recipe.json").write_text(json.dumps({**recipe, "data": {**recipe["data"], "split": 0.4}}))
    code, said = sitkit("likelihood", run, "--num", 3, "--probes", 2)
    assert (code, "was created with other data" in said) == (2, True)
    (run / "recipe.json").write_text(json.dumps(recipe))


@pytest.mark.parametrize("average", ["ema", "width-0.2"])
def test_other_weights_of_the_same_step_are_measured_anew(run: Path, tmp_path: Path, average: str) -> None:
    options = ["--num", 3, "--probes", 2, "--average", average]
    first = likelihood(run, *options)
    other = trained(tmp_path / "other", "seed=1")
    shutil.copytree(run / "likelihood", other / "likelihood")
    report = likelihood(other, *options)
    assert report["checkpoint"] == first["checkpoint"]
    assert report["bits per dimension"] != first["bits per dimension"]


def test_images_on_the_disk_are_read_a_batch_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_tree(tmp_path / "images")
    run = trained(tmp_path / "run", f"data={{kind='folder', path='{source}', size=4, split=0.5}}", "train.batch=2")
    sizes: list[int] = []
    read = LazyImages.read

    def watch(images: LazyImages, numbers: Tensor, /) -> Tensor:
        sizes.append(len(numbers))
        return read(images, numbers)

    monkeypatch.setattr(LazyImages, "read", watch)
    report = likelihood(run, "--batch", 1)
    assert report["images"] == len(own_labels(run)) == len(sizes) == 2
    assert set(sizes) == {1}
    assert set(report["classes"]) == {"cat", "dog"}


def as_latents() -> Split:
    """Return data whose states are not pixels."""
    return Split(own().training, own().heldout, (), lambda states: to_pixels(states / 2))


def none_held_out() -> Split:
    """Return data without held-out images."""
    nothing = torch.zeros(0, dtype=torch.int64)
    return Split(own().training, InMemory(own().heldout.read(nothing), nothing), ())


@pytest.mark.parametrize(
    ("data", "what"), [("as_latents", "network is trained on latents"), ("none_held_out", "have no held-out images")]
)
def test_data_without_pixels_to_measure_are_refused_in_a_line(tmp_path: Path, data: str, what: str) -> None:
    run = trained(tmp_path / "run", f"data.kind=test_likelihood_command:{data}", "train.batch=2")
    code, said = sitkit("likelihood", run, "--trust")
    assert code == 2
    assert what in said
    assert said.count("\n") == 1
    assert not (run / "likelihood").exists()


WORDS = ["--num", "45", "--batch", "4", "--probes", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
def test_killed_at_any_moment_it_resumes_to_the_bit(run: Path, tmp_path: Path, world: int) -> None:
    chance, log = random.Random(world), tmp_path / "log"
    left, killed = (shutil.copytree(run, tmp_path / name) for name in ("left", "killed"))
    for folder in (left, killed):
        shutil.rmtree(folder / "likelihood", ignore_errors=True)
        (folder / "likelihood.json").unlink(missing_ok=True)
    assert forked.finish(["likelihood", str(left), *WORDS], log) == 0, log.read_text()

    def lines() -> list[bytes]:
        return [line for file in (killed / "likelihood").glob("*.jsonl") for line in file.read_bytes().splitlines()]

    kills = 0
    while len(lines()) < 12 and kills < 40:
        before, words = lines(), ["likelihood", str(killed), *WORDS]
        shared = [{"RANK": str(rank), "WORLD_SIZE": str(world)} for rank in range(world)]
        processes = [forked.start(words, log, **each) for each in shared]
        more, end = chance.randint(1, 2), time.monotonic() + 60
        while len(lines()) < min(len(before) + more, 12) and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(chance.random() * 0.1)
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
        assert {process.wait() for process in processes} <= {-signal.SIGKILL, 0}
        assert set(before) <= set(lines())
        kills += 1
    assert kills >= 3
    codes = (
        forked.together(world, ["likelihood", str(killed), *WORDS], log)
        if world > 1
        else [forked.finish(["likelihood", str(killed), *WORDS], log)]
    )
    assert codes == [0] * world, log.read_text()
    assert len([line for line in lines() if line.endswith(b"}")]) == 12  # none was measured twice
    assert (killed / "likelihood.json").read_bytes() == (left / "likelihood.json").read_bytes()
    files, same = ({file.name: file.read_bytes() for file in (one / "likelihood").iterdir()} for one in (killed, left))
    assert files == same
