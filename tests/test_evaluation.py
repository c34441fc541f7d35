"""Reports: their numbers are those of the pixels by definition, and their manifest says all that they depend on."""

import base64
import json
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cdist
from torch import Tensor

import forked
import launching
from latent_caches import small, write
from measuring import (
    LIKENESS,
    Likeness,
    kill,
    noted,
    patience,
    refused,
    sets,
    sitkit,
    states,
    trained,
    write_arrays,
    written,
)
from sitkit.recipes.data import digits
from sitkit.recipes.data.images import read_all
from sitkit.recipes.evaluate.measure import NEARER, WANTED
from sitkit.recipes.metrics import (
    frechet_distance,
    inception_score,
    kernel_distance,
    moments,
    precision_recall,
)
from sitkit.recipes.reading import read
from sitkit.recipes.sample.shards import SampleFolder
from sitkit.recipes.tables import differing, flatten

FEW = sets("evaluation.num=60", "evaluation.draws=1", "evaluation.unguided=false")
OF_PIXELS = ("Frechet distance of pixels", "precision", "recall", "kernel distance of pixels")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("evaluation") / "run")


def report_in(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "report.json").read_text()))


def evaluated(*words: object) -> dict[str, Any]:
    """Return the report of an evaluation, whose folder stands last."""
    code, said = sitkit("evaluate", *words)
    assert code == 0, said
    return report_in(Path(str(words[-1])))


def means(report: dict[str, Any]) -> dict[str, float]:
    return {name: number["mean"] for name, number in report["numbers"].items()}


def of_pixels(pixels: Tensor) -> Tensor:
    return pixels.flatten(1).float() / 255


def by_hand(samples: Tensor, real: Tensor) -> dict[str, float]:
    precision, recall = precision_recall(real, samples, 3)
    distance = frechet_distance(*moments(samples), *moments(real))
    return dict(zip(OF_PIXELS, (distance, precision, recall, kernel_distance(real, samples)), strict=True))


def wanted_by_hand(one: Tensor, labels: Tensor, real: Tensor, own: Tensor, apart: bool = False) -> float:
    distances = cdist(one.numpy(), real.numpy())
    if apart:
        np.fill_diagonal(distances, np.inf)
    return float(np.mean(own.numpy()[distances.argmin(1)] == labels.numpy()))


@pytest.fixture(scope="module")
def reported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a report on two draws of 60 samples, with guidance and without, in pixels."""
    folder = tmp_path_factory.mktemp("reported") / "out"
    several = sets("evaluation.num=60", "evaluation.draws=2")
    evaluated(run, "--seed", 4, *several, "--out", folder)
    return folder


def test_numbers_are_those_of_the_pixels(reported: Path) -> None:
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
            expected = by_hand(pixels, real)
            expected[WANTED] = wanted_by_hand(pixels, labels, real, split.heldout.labels)
            for name, value in expected.items():
                said = numbers[name] if guidance == 2 else numbers[name]["without guidance"]
                assert said["values"][place] == pytest.approx(value, rel=1e-6, abs=1e-9)
    for name, value in by_hand(training, real).items():
        assert numbers[name]["real"] == pytest.approx(value, rel=1e-6)
    same = wanted_by_hand(real, split.heldout.labels, real, split.heldout.labels, apart=True)
    assert numbers[WANTED]["real"] == pytest.approx(same)
    assert numbers[NEARER]["real"] == 0.5
    for number in numbers.values():
        assert number["mean"] == pytest.approx(np.mean(number["values"]))
        assert number["spread"] == pytest.approx(np.std(number["values"], ddof=1))


def test_classes_have_their_own_numbers(reported: Path) -> None:
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
        assert row["wanted"] == pytest.approx(wanted_by_hand(pixels[here], labels[here], real, own))
    assert len(rows) == 10


def guidance_of(folder: Path) -> float:
    return float(SampleFolder.open(folder).content.manifest["recipe"]["guidance"]["scale"])


def test_a_page_is_one_file_with_its_pictures(reported: Path) -> None:
    page = (reported / "report.html").read_text()
    assert "http" not in page
    assert not re.search(r"<(link|script|iframe)|@import|url\(|href", page)
    sources = re.findall(r"src='([^']*)'", page)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(base64.b64decode(source.split(",")[1]).startswith(b"\x89PNG") for source in sources)
    captions = re.findall(r"<h2>([^<]*)</h2>(?=<img)", page)
    assert len(captions) == len(sources)
    neighbours = "Samples (above), the nearest training image, the nearest held-out image"
    assert captions == ["Samples", "Samples without guidance", "Images of the reference", neighbours, "Training loss"]
    assert "<h2>Classes</h2><details open>" in page
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


def test_a_manifest_says_what_numbers_depend_on(run: Path, reported: Path) -> None:
    manifest = report_in(reported)["manifest"]
    flat = flatten(manifest)
    assert [key for key in NEEDED if key not in flat or flat[key] in (None, "auto")] == []
    files = json.loads((run / "checkpoints/step-00000024/manifest.json").read_text())["files"]
    assert flat["average_sha256"] == files["ema.safetensors"]["sha256"]
    assert (flat["samples"], flat["draws"], flat["seeds"], flat["labels"]) == (60, 2, [4, 5], "in turn, of all classes")
    assert manifest["network_calls"] == {"as the recipe says": 3, "without guidance": 3}
    assert manifest["network_rows_a_sample"] == {"as the recipe says": 6, "without guidance": 3}
    assert (flat["recipe.evaluation.num"], flat["features.name"], flat["reference.count"]) == (60, "pixels", 899)


def test_a_manifest_is_of_the_evaluation_that_was_asked_for(run: Path, reported: Path, tmp_path: Path) -> None:
    """Samples that were drawn for another one are the same, and what is said of evaluation is not."""
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


def folder_of(run: Path, tmp_path: Path, count: int = 40, seed: int = 0) -> SampleFolder:
    """Return a folder of samples of a run, which are held-out digits with noise."""
    images = digits().heldout
    chosen = torch.arange(count) * 20
    noise = torch.randint(40, (count, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    pixels = (images.read(chosen).int() + noise).clamp(0, 255).to(torch.uint8)
    manifest = {"checkpoint": "by hand", "seed": 0, "recipe": read("digits").model_dump(mode="json")}
    names = tuple("0123456789")
    samples = written(tmp_path / "samples", pixels, images.labels[chosen], shard=16, **manifest)
    found = SampleFolder(samples.folder, samples.content.model_copy(update={"classes": names}))
    found.write()
    return found


def test_samples_compared_with_themselves(run: Path, tmp_path: Path) -> None:
    samples = folder_of(run, tmp_path)
    for place in ("x.npz", "png"):  # of which one has labels
        assert sitkit("export", samples.folder, "--out", tmp_path / place)[0] == 0
        report = evaluated(samples.folder, "--reference", tmp_path / place, "--out", tmp_path / "out")
        found = means(report)
        assert abs(found["Frechet distance of pixels"]) < 1e-6
        assert (found["precision"], found["recall"]) == (1, 1)
        assert found.get(WANTED) == (1 if place == "x.npz" else None)
        assert {row["distance"] for row in report["classes"]} == ({0} if place == "x.npz" else set())
        assert NEARER not in found
        assert all(number["real"] is None for name, number in report["numbers"].items() if name != WANTED)
        page = (tmp_path / "out/report.html").read_text()
        assert "Samples (above), the nearest real image" in page
        assert report["manifest"]["reference"]["source"] == str(tmp_path / place)


def test_a_folder_of_samples_is_measured_as_a_run_is(run: Path, tmp_path: Path) -> None:
    """By what the data hold out, or by the same images as files in folders of their classes."""
    samples, heldout = folder_of(run, tmp_path), digits().heldout
    report = evaluated(samples.folder, "--out", tmp_path / "default")
    numbers = sorted(means(report))
    assert numbers == sorted([*OF_PIXELS, NEARER, WANTED])
    for number in range(len(heldout)):
        file = tmp_path / "real" / str(heldout.labels[number].item()) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(heldout.read(torch.tensor([number]))[0, 0].numpy()).save(file)
    other = evaluated(samples.folder, "--reference", tmp_path / "real", "--out", tmp_path / "files")
    assert means(other) == pytest.approx({k: v for k, v in means(report).items() if k != NEARER}, rel=1e-6)
    assert len(other["classes"]) == 10
    assert other["numbers"][WANTED]["real"] == pytest.approx(report["numbers"][WANTED]["real"])
    (tmp_path / "real/9").rename(tmp_path / "real/nine")
    assert WANTED not in means(evaluated(samples.folder, "--reference", tmp_path / "real", "--out", tmp_path / "files"))


def test_inceptions_numbers_are_adms(run: Path, tmp_path: Path) -> None:
    """FID and sFID are of the reference's statistics, neighbours among its images."""
    samples = folder_of(run, tmp_path)
    real = torch.cat([samples.read(torch.arange(10, 30)), digits().heldout.read(torch.arange(30))])
    found, own = Likeness()(samples.read(torch.arange(40))), Likeness()(real)
    assert found.spatial is not None
    assert found.probs is not None
    generator = np.random.default_rng(0)
    roots = {size: generator.standard_normal((size, size)) for size in (6, 4)}
    given = {"mu": generator.standard_normal(6), "sigma": roots[6] @ roots[6].T}
    given |= {"mu_s": generator.standard_normal(4), "sigma_s": roots[4] @ roots[4].T}
    arr_0 = real.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    write_arrays(tmp_path / "adm.npz", **given, arr_0=arr_0)
    words = (samples.folder, "--reference", tmp_path / "adm.npz", "--set", LIKENESS, "--out", tmp_path / "out")
    numbers = means(evaluated(*words))
    tensors = {name: torch.from_numpy(array) for name, array in given.items()}
    precision, recall = precision_recall(own.pooled, found.pooled, 3)
    assert numbers == pytest.approx(
        {
            "FID": frechet_distance(*moments(found.pooled), tensors["mu"], tensors["sigma"]),
            "sFID": frechet_distance(*moments(found.spatial), tensors["mu_s"], tensors["sigma_s"]),
            "Inception score": inception_score(found.probs, 1),
            "precision": precision,
            "recall": recall,
            "KID": kernel_distance(own.pooled, found.pooled),
        },
        rel=1e-6,
    )
    write_arrays(tmp_path / "adm.npz", **given)
    fewer = means(evaluated(*words))
    assert fewer == {name: numbers[name] for name in ("FID", "sFID", "Inception score")}
    assert "has statistics, and no images to show" in (tmp_path / "out/report.html").read_text()


def test_real_images_have_an_inception_score(run: Path, tmp_path: Path) -> None:
    """Training images, whose statistics come from a file; it is not 0."""
    samples = folder_of(run, tmp_path)
    numbers = evaluated(samples.folder, "--set", LIKENESS, "--out", tmp_path / "out")["numbers"]
    probs = Likeness()(read_all(digits().training)).probs
    assert probs is not None
    assert numbers["Inception score"]["real"] == pytest.approx(inception_score(probs, 1), rel=1e-6)


def test_nothing_is_looked_at_twice(run: Path, tmp_path: Path) -> None:
    samples = folder_of(run, tmp_path)
    words = (samples.folder, "--set", LIKENESS, "--out", tmp_path / "out")
    with noted(tmp_path / "notes") as seen:
        first = evaluated(*words)
    assert sum(seen) == 40 + 899 + 898
    with noted(tmp_path / "notes") as seen:
        again = evaluated(*words)
    assert seen == []
    assert again == first
    (block,) = (tmp_path / "samples/features").glob("*/*.npz")
    block.write_bytes(block.read_bytes()[:-1])
    with noted(tmp_path / "notes") as seen:
        assert evaluated(*words) == first
    assert seen == [40]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("evaluate {few}", "there are 9 samples, and numbers take 10 or more"),
        ("evaluate {run} --set evaluation.num=9", "evaluation.num is 9, and numbers take 10 samples or more"),
        ("evaluate {samples} --reference {nine}", "there are 9 images of the reference, and numbers take 10 or more"),
        ("evaluate {samples} --reference {nan}", "mu or sigma has numbers that are not finite: make or copy it anew"),
        ("evaluate {samples} --reference {cut}", "is neither a folder of images nor an npz"),
        ("evaluate {samples} --reference {other}", "likeness bbbbbbbbbbbb, and evaluation.features is likeness aaaaaa"),
        ("evaluate {samples} --reference {sized}", "mu and sigma are (4,) and (6, 6), not (D,), (D, D)"),
        ("evaluate {samples} --reference {wide}", "samples have 6 features, and the reference has 7: it is of other"),
        ("evaluate {samples} --reference {large}", "0.png is 9x9, samples are 8x8: --crop cuts images as ADM does"),
        ("evaluate {samples} --reference {colour}", "has images in colour, and samples have 1 channels"),
        ("evaluate {samples} --reference {none}", "there is no reference"),
        ("evaluate {samples} --set evaluation.features=inception", "pip install 'sitkit[eval]'"),
        ("evaluate {samples} --set sampler.steps=3", "of samples that are drawn only evaluation can be changed"),
        ("evaluate {damaged}", "lacks 1 of 3 shards: the same `sitkit sample` draws what is missing"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    samples = folder_of(run, tmp_path)
    places = {name: tmp_path / name for name in ("few", "nine", "large", "colour", "none", "damaged")}
    places |= {name: tmp_path / f"{name}.npz" for name in ("nan", "cut", "other", "sized", "wide")}
    written(places["few"], torch.zeros(9, 1, 8, 8, dtype=torch.uint8), **samples.content.manifest)
    for name, count, shape in (("nine", 9, (8, 8)), ("large", 10, (9, 9)), ("colour", 10, (8, 8, 3))):
        places[name].mkdir()
        for number in range(count):
            noise = np.random.default_rng(number).integers(0, 256, shape).astype(np.uint8)
            Image.fromarray(noise).save(places[name] / f"{number}.png")
    np.savez(places["nan"], mu=np.full(6, np.nan), sigma=np.eye(6))
    np.savez(places["sized"], mu=np.zeros(4), sigma=np.eye(6))
    np.savez(places["wide"], mu=np.zeros(7), sigma=np.eye(7))
    np.savez(places["cut"], mu=np.zeros(6), sigma=np.eye(6))
    places["cut"].write_bytes(places["cut"].read_bytes()[:-9])
    about = {"features": {"name": "likeness", "sha256": "b" * 64}, "count": 99}
    np.savez(places["other"], mu=np.zeros(6), sigma=np.eye(6), about=np.array(json.dumps(about)))
    shutil.copytree(samples.folder, places["damaged"])
    (places["damaged"] / "shards/00000016.npz").unlink()
    features = [] if "features=" in words else ["--set", LIKENESS]
    out = tmp_path / "out"
    line = refused(*words.format(run=run, samples=samples.folder, **places).split(), *features, "--out", out)
    assert said in line
    assert not [*out.glob("report.*")]


def words(run: Path, out: Path) -> list[str]:
    few = sets("evaluation.num=700", "evaluation.draws=1", LIKENESS)
    return ["evaluate", str(run), *few, "--batch", "32", "--out", str(out)]


@pytest.fixture(scope="module")
def alone(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a report that was left alone."""
    folder = tmp_path_factory.mktemp("straight")
    assert forked.finish(words(run, folder / "out"), folder / "log") == 0, (folder / "log").read_text()
    return folder / "out"


@pytest.mark.processes
def test_two_processes_measure_what_one_does(run: Path, alone: Path, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    launch = [*launching.torchrun(2), "-m", "sitkit.recipes", "--", *words(run, out)]
    assert launching.finish(launch, log) == 0, log.read_text()
    assert differing(report_in(out), report_in(alone)) == {}
    assert log.read_text().count("report.html") == 1
    samples = next((out / "samples").iterdir())
    code, _ = sitkit("evaluate", samples, "--set", LIKENESS, "--out", tmp_path / "again")
    assert code == 0
    assert means(report_in(tmp_path / "again")) == pytest.approx(means(report_in(alone)), rel=1e-6)


@pytest.mark.processes
def test_an_evaluation_that_is_killed_goes_on(run: Path, alone: Path, tmp_path: Path) -> None:
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
    assert differing(report_in(out), report_in(alone)) == {}
    assert (out / "report.html").read_text() == (alone / "report.html").read_text()
