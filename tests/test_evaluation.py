"""Evaluation of runs: metrics equal their definitions, and the manifest lists all that they depend on."""

import base64
import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from test_caches import write_images
from torch import Tensor

import forked
import launching
from latent_caches import small, write
from measuring import (
    LIKENESS,
    OF_PIXELS,
    evaluated,
    kill,
    means,
    patience,
    refused,
    report_in,
    sets,
    sitkit,
    states,
    trained,
)
from sitkit.recipes.data import digits
from sitkit.recipes.data.images import read_all
from sitkit.recipes.evaluation import memory
from sitkit.recipes.evaluation.compute_metrics import NEARER, WANTED
from sitkit.recipes.metrics import frechet_distance, kernel_distance, moments, precision_recall
from sitkit.recipes.sampling.sample_folder import SampleFolder
from sitkit.recipes.support.json_toml import differences, flatten

FEW = sets("evaluation.num=60", "evaluation.draws=1", "evaluation.unguided=false")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("evaluation") / "run")


def of_pixels(pixels: Tensor) -> Tensor:
    return pixels.flatten(1).float() / 255


def expected_metrics(samples: Tensor, real: Tensor) -> dict[str, float]:
    precision, recall = precision_recall(real, samples, 3)
    distance = frechet_distance(*moments(samples), *moments(real))
    return dict(zip(OF_PIXELS, (distance, precision, recall, kernel_distance(real, samples)), strict=True))


def expected_fraction(one: Tensor, labels: Tensor, real: Tensor, own: Tensor, apart: bool = False) -> float:
    distances = cdist(one.numpy(), real.numpy())
    if apart:
        np.fill_diagonal(distances, np.inf)
    return float(np.mean(own.numpy()[distances.argmin(1)] == labels.numpy()))


@pytest.fixture(scope="module")
def reported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a report on two draws of 60 samples each, with and without guidance, in pixels."""
    folder = tmp_path_factory.mktemp("reported") / "out"
    several = sets("evaluation.num=60", "evaluation.draws=2")
    evaluated(run, "--seed", 4, *several, "--out", folder)
    return folder


def test_metrics_equal_their_definitions_on_the_pixels(reported: Path) -> None:
    """By default of what the data hold out, and beside them those of training images."""
    report, split = report_in(reported), digits()
    numbers = report["numbers"]
    assert list(numbers) == [*OF_PIXELS, NEARER, WANTED]
    real, training = (of_pixels(read_all(images)) for images in (split.heldout, split.training))
    found = {}
    for file in sorted((reported / "samples").iterdir()):
        samples = SampleFolder.open(file)
        guidance = samples.content.manifest["recipe"]["guidance"]["scale"]
        found[guidance, samples.content.manifest["seed"]] = of_pixels(samples.read(torch.arange(60)))
    assert sorted(found) == [(1.0, 4), (1.0, 5), (2.0, 4), (2.0, 5)]
    labels = torch.arange(60) % 10
    for guidance in (2.0, 1.0):
        for place, seed in enumerate((4, 5)):
            pixels = found[guidance, seed]
            expected = expected_metrics(pixels, real)
            expected[WANTED] = expected_fraction(pixels, labels, real, split.heldout.labels)
            for name, value in expected.items():
                said = numbers[name] if guidance == 2 else numbers[name]["without guidance"]
                assert said["values"][place] == pytest.approx(value, rel=1e-6, abs=1e-9)
    for name, value in expected_metrics(training, real).items():
        assert numbers[name]["real"] == pytest.approx(value, rel=1e-6)
    same = expected_fraction(real, split.heldout.labels, real, split.heldout.labels, apart=True)
    assert numbers[WANTED]["real"] == pytest.approx(same)
    assert numbers[NEARER]["real"] == 0.5
    for number in numbers.values():
        assert number["mean"] == pytest.approx(np.mean(number["values"]))
        assert number["spread"] == pytest.approx(np.std(number["values"], ddof=1))


def test_classes_have_metrics(reported: Path) -> None:
    split = digits()
    rows = report_in(reported)["classes"]
    (file,) = (file for file in (reported / "samples").glob("seed-4-*") if guidance_of(file) == 2)
    pixels, labels = of_pixels(SampleFolder.open(file).read(torch.arange(60))), torch.arange(60) % 10
    sources = [(pixels, labels)]
    sources += [(of_pixels(read_all(images)), images.labels) for images in (split.heldout, split.training)]
    real, own = sources[1]
    for label, row in enumerate(rows):
        mean, reference, training = (x[of == label].double().mean(0) for x, of in sources)
        assert (row["class"], row["samples"]) == (str(label), 6)
        assert row["reference"] == int((own == label).sum())
        assert row["distance"] == pytest.approx(float((mean - reference).norm()))
        assert row["real"] == pytest.approx(float((training - reference).norm()))
        here = labels == label
        assert row["wanted"] == pytest.approx(expected_fraction(pixels[here], labels[here], real, own))
    assert len(rows) == 10


def guidance_of(folder: Path) -> float:
    return float(SampleFolder.open(folder).content.manifest["recipe"]["guidance"]["scale"])


def test_a_report_page_is_one_file_with_its_images(reported: Path) -> None:
    page = (reported / "report.html").read_text()
    assert "http" not in page
    assert not re.search(r"<(link|script|iframe)|@import|url\(|href", page)
    sources = re.findall(r'src="([^"]*)"', page)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(base64.b64decode(source.split(",")[1]).startswith(b"\x89PNG") for source in sources)
    captions = re.findall(r"<h2>([^<]*)</h2>\s*(?=<img)", page)
    assert len(captions) == len(sources)
    neighbours = "Samples (above), the nearest training image, the nearest held-out image"
    assert captions == ["Samples", "Samples without guidance", "Reference images", neighbours, "Training loss"]
    assert re.search(r"<h2>Metrics per class</h2>\s*<details open>", page)
    for name, number in report_in(reported)["numbers"].items():
        assert f"<td>{name}</td><td>{number['mean']:.4g} +- {number['spread']:.2g}</td>" in page


NEEDED: tuple[str, ...] = (
    "recipe.sampler.solver.kind",
    "recipe.sampler.steps",
    "recipe.sampler.times.kind",
    "recipe.sampler.interval",
)
NEEDED += ("recipe.sampler.last", "recipe.sampler.last_step", "recipe.sampler.w.kind", "recipe.guidance.scale")
NEEDED += ("recipe.guidance.interval", "recipe.guidance.channels", "checkpoint", "average", "average_sha256", "seed")
NEEDED += ("labels", "pixels", "precision", "samples", "draws", "seeds", "features.name", "features.sha256")
NEEDED += ("network_calls.as the recipe says", "network_rows_a_sample.as the recipe says", "reference.source")
NEEDED += ("reference.sha256", "reference.count", "made_by.torch", "made_by.sitkit", "made_by.numpy", "made_by.device")


def test_a_manifest_lists_everything_that_metrics_depend_on(run: Path, reported: Path) -> None:
    manifest = report_in(reported)["manifest"]
    flat = flatten(manifest)
    assert [key for key in NEEDED if key not in flat or flat[key] in (None, "auto")] == []
    files = json.loads((run / "checkpoints/step-00000024/manifest.json").read_text())["files"]
    assert flat["average_sha256"] == files["ema.safetensors"]["sha256"]
    assert (flat["samples"], flat["draws"], flat["seeds"], flat["labels"]) == (60, 2, [4, 5], "in turn, of all classes")
    assert manifest["network_calls"] == {"as the recipe says": 3, "without guidance": 3}
    assert manifest["network_rows_a_sample"] == {"as the recipe says": 6, "without guidance": 3}
    assert (flat["recipe.evaluation.num"], flat["features.name"], flat["reference.count"]) == (60, "pixels", 899)


def test_a_manifest_describes_the_requested_evaluation(run: Path, reported: Path, tmp_path: Path) -> None:
    """Samples of an earlier evaluation are reused, and the manifest describes the new evaluation."""
    shutil.copytree(reported, tmp_path / "out")
    before = states(tmp_path / "out/samples")
    drawn = {*(tmp_path / "out/samples").iterdir()}
    asked = sets("evaluation.num=40", "evaluation.draws=2", LIKENESS)
    report = evaluated(run, "--seed", 4, *asked, "--out", tmp_path / "out")
    flat = flatten(report["manifest"])
    assert flat["recipe.evaluation.features.kind"] == "measuring:Likeness"
    assert (flat["features.name"], flat["features.sha256"]) == ("likeness", "a" * 64)
    after = states(tmp_path / "out/samples")
    assert after.items() >= before.items()
    assert flat["samples"] == 40
    fresh = {*(tmp_path / "out/samples").iterdir()} - drawn
    assert {SampleFolder.open(folder).content.count for folder in fresh} == {40}


def test_a_manifest_of_latents_names_the_autoencoder(tmp_path: Path) -> None:
    vae = small(tmp_path / "vae", seed=0)
    for name in ("one", "other"):
        write(tmp_path / name, vae)
    recipe = tmp_path / "latents.toml"
    data = f'kind = "latents"\npath = "{tmp_path / "one"}"\nheldout = "{tmp_path / "other"}"\n'
    recipe.write_text(f'[data]\n{data}[backbone]\nkind = "sit"\npatch_size = 2\n')
    folder = trained(tmp_path / "run", "train.steps=2", recipe=recipe)
    report = evaluated(folder, *sets("evaluation.num=12", "sampler.steps=2"), "--out", tmp_path / "out")
    decoder = report["manifest"]["decoder"]
    index = json.loads((tmp_path / "one/index.json").read_text())
    assert decoder["vae_sha256"] == index["vae"]["sha256"]
    assert (decoder["vae"], decoder["scale"], decoder["shift"]) == (str(vae), 0.18215, 0.0)
    samples = SampleFolder.open(next((tmp_path / "out/samples").iterdir()))
    assert samples.content.image == (3, 8, 8)
    assert report["manifest"]["reference"]["count"] == 21


def test_a_run_needs_ten_samples(run: Path, tmp_path: Path) -> None:
    line = refused("evaluate", run, *sets("evaluation.num=9"), "--out", tmp_path / "out")
    assert "evaluation.num is 9: metrics need 10 samples or more" in line
    assert not [*(tmp_path / "out").glob("report.*")]


def test_too_little_memory_is_refused_before_sampling(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 400_000)
    line = refused("evaluate", run, *FEW, "--out", tmp_path / "out")
    assert "pixels computes 64 features per image" in line
    assert not (tmp_path / "out").exists()
    fewer = 8 * 64**2 * (3 + 2 + memory.WORKING) + 4 * 64 * (60 + 899 + 898)
    monkeypatch.setattr(memory, "available_memory", lambda: fewer)
    evaluated(run, *FEW, "--out", tmp_path / "out")


def words(run: Path, out: Path) -> list[str]:
    few = sets("evaluation.num=700", "evaluation.draws=1", LIKENESS)
    return ["evaluate", str(run), *few, "--batch", "32", "--out", str(out)]


@pytest.fixture(scope="module")
def alone(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an uninterrupted evaluation."""
    folder = tmp_path_factory.mktemp("straight")
    assert forked.finish(words(run, folder / "out"), folder / "log") == 0, (folder / "log").read_text()
    return folder / "out"


@pytest.mark.slow
def test_two_processes_measure_the_same_as_one(run: Path, alone: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    launch = [*launching.torchrun(2), "-m", "sitkit.recipes", *words(run, out)]
    assert launching.finish(launch, log) == 0, log.read_text()
    assert differences(report_in(out), report_in(alone)) == {}
    assert log.read_text().count("report.html") == 1
    samples = next((out / "samples").iterdir())
    code, _ = sitkit("evaluate", samples, "--set", LIKENESS, "--out", tmp_path / "again")
    assert code == 0
    assert means(report_in(tmp_path / "again")) == pytest.approx(means(report_in(alone)), rel=1e-6)


@pytest.mark.slow
def test_a_killed_evaluation_resumes(run: Path, alone: Path, tmp_path: Path) -> None:
    log, out, kills = tmp_path / "log", tmp_path / "out", 0
    for seconds in patience():
        forks = [forked.start(words(run, out), log, RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
        time.sleep(seconds)
        for fork in forks:
            kill(fork)
        if [fork.wait() for fork in forks] == [0, 0]:
            break
        kills += 1
    assert kills > 3
    assert differences(report_in(out), report_in(alone)) == {}
    assert (out / "report.html").read_text() == (alone / "report.html").read_text()


def test_a_run_is_measured_without_its_data_by_a_reference(tmp_path: Path) -> None:
    """What of the data is needed, such as how many were held out, the run knows; a search of samplers needs no more."""
    places = {name: write_images(tmp_path / name, range(14)) for name in ("train", "held", "real")}
    data = f"data={{kind='folder', path='{places['train']}', heldout='{places['held']}', size=8}}"
    folder = trained(
        tmp_path / "run", data, "backbone.kind=sit", "backbone.patch_size=4", "train.batch=2", "train.steps=2"
    )
    words = (folder, "--reference", places["real"], *sets("evaluation.draws=1"), "--out")
    before = means(evaluated(*words, tmp_path / "before"))
    for name in ("train", "held"):
        places[name].rename(tmp_path / f"moved-{name}")
    report = evaluated(*words, tmp_path / "after")
    assert means(report) == before
    assert report["manifest"]["samples"] == 14
    assert NEARER not in before
    for command in ("evaluate", "tune"):
        more = ["--over", "guidance.scale=1.0|1.5", "--calls", "3"] if command == "tune" else []
        line = refused(command, folder, *more, "--out", tmp_path / "none")
        moved = "if the data have moved, give their location with --set data.path=DIR"
        assert f"there is no folder {places['train']}; {moved}; " in line
        assert "other images to compare with" in line
    code, said = sitkit("tune", *words[:-1], *more, "--out", tmp_path / "tuned")
    assert code == 0, said
    assert "so the loss is not measured, and there are no bounds of w" in said
    assert (tmp_path / "tuned/sampler.toml").is_file()
