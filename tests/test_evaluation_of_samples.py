"""Evaluation of given samples against any reference: statistics, arrays or folders of images."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from measuring import (
    LIKENESS,
    OF_PIXELS,
    Likeness,
    evaluated,
    means,
    noted,
    refused,
    sitkit,
    write_arrays,
    written,
)
from sitkit.recipes.data import digits
from sitkit.recipes.data.images import read_all
from sitkit.recipes.evaluation import memory
from sitkit.recipes.evaluation.compute_metrics import NEARER, WANTED
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.features import Pixels
from sitkit.recipes.metrics import frechet_distance, inception_score, kernel_distance, moments, precision_recall
from sitkit.recipes.sampling.sample_folder import SampleFolder


def folder_of(tmp_path: Path, count: int = 40, seed: int = 0) -> SampleFolder:
    """Return a folder of samples, which are held-out digits with noise."""
    images = digits().heldout
    chosen = torch.arange(count) * 20
    noise = torch.randint(40, (count, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
    pixels = (images.read(chosen).int() + noise).clamp(0, 255).to(torch.uint8)
    manifest: dict[str, Any] = {
        "checkpoint": "by hand",
        "seed": 0,
        "recipe": read_recipe("digits").model_dump(mode="json"),
    }
    names = tuple("0123456789")
    samples = written(tmp_path / "samples", pixels, images.labels[chosen], shard=16, **manifest)
    found = SampleFolder(samples.folder, samples.content.model_copy(update={"classes": names}))
    found.write()
    return found


def test_samples_compared_with_themselves(tmp_path: Path) -> None:
    samples = folder_of(tmp_path)
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


def test_a_folder_of_samples_is_measured_as_a_run_is(tmp_path: Path) -> None:
    """By what the data hold out, or by the same images as files in folders of their classes."""
    samples, heldout = folder_of(tmp_path), digits().heldout
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


def test_inception_metrics_equal_those_of_adm(tmp_path: Path) -> None:
    """FID and sFID are of the reference's statistics, neighbours among its images."""
    samples = folder_of(tmp_path)
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
    assert "has statistics only, no images to show" in (tmp_path / "out/report.html").read_text()


def test_real_images_have_an_inception_score(tmp_path: Path) -> None:
    """Training images, whose statistics come from a file; it is not 0."""
    samples = folder_of(tmp_path)
    numbers = evaluated(samples.folder, "--set", LIKENESS, "--out", tmp_path / "out")["numbers"]
    probs = Likeness()(read_all(digits().training)).probs
    assert probs is not None
    assert numbers["Inception score"]["real"] == pytest.approx(inception_score(probs, 1), rel=1e-6)


def test_nothing_is_looked_at_twice(tmp_path: Path) -> None:
    samples = folder_of(tmp_path)
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
        ("evaluate {few}", "there are 9 samples: metrics need 10 or more"),
        ("evaluate {samples} --reference {nine}", "there are 9 images of the reference: metrics need 10 or more"),
        ("evaluate {samples} --reference {nan}", "mu or sigma has numbers that are not finite, or none"),
        ("evaluate {samples} --reference {cut}", "is neither a folder of images nor an npz"),
        ("evaluate {samples} --reference {other}", "likeness bbbbbbbbbbbb, and evaluation.features is likeness aaaaaa"),
        ("evaluate {samples} --reference {sized}", "sigma is float64 (6, 6) instead of real numbers of shape (4, 4)"),
        ("evaluate {samples} --reference {wide}", "samples have 6 features, but the reference has 7: it has another"),
        ("evaluate {samples} --reference {large}", "0.png is 9x9, samples are 8x8: --crop crops images as ADM does"),
        ("evaluate {samples} --reference {colour}", "has images in colour, but samples have 1 channels"),
        ("evaluate {samples} --reference {none}", "there is no reference"),
        ("evaluate {samples} --set evaluation.features=inception", "pip install 'sitkit[eval]'"),
        ("evaluate {samples} --set sampler.steps=3", "of existing samples only evaluation can be changed"),
        ("evaluate {damaged}", "lacks 1 of 3 shards: run the same `sitkit sample` again"),
    ],
)
def test_impossible_measurements_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    samples = folder_of(tmp_path)
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
    own: dict[str, Any] = {
        "features": np.zeros((0, 6)),
        "numbers": np.zeros(0, dtype=np.int64),
        "about": np.array(json.dumps(about)),
    }
    np.savez(places["other"], mu=np.zeros(6), sigma=np.eye(6), **own)
    shutil.copytree(samples.folder, places["damaged"])
    (places["damaged"] / "shards/00000016.npz").unlink()
    features = [] if "features=" in words else ["--set", LIKENESS]
    out = tmp_path / "out"
    line = refused(*words.format(samples=samples.folder, **places).split(), *features, "--out", out)
    assert said in line
    assert not [*out.glob("report.*")]


def test_too_little_memory_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels of 128 x 128 images: covariances of 19 GB each. An extractor that tells nothing is asked for one batch."""
    monkeypatch.setattr(memory, "available_memory", lambda: 24 * 10**9)
    pixels = torch.zeros(12, 3, 128, 128, dtype=torch.uint8)
    manifest: dict[str, Any] = {
        "checkpoint": "by hand",
        "seed": 0,
        "recipe": read_recipe("digits").model_dump(mode="json"),
    }
    samples = written(tmp_path / "samples", pixels, **manifest)
    line = refused("evaluate", samples.folder, "--reference", samples.folder, "--out", tmp_path / "out")
    assert "pixels computes 49,152 features per image" in line
    assert "covariances of 19.3 GB each" in line
    assert "24.0 GB are free: set evaluation.features to an extractor with fewer features" in line
    assert all(kind in line for kind in ("inception", "dinov2", "eff_net_lite0"))
    assert not [*samples.folder.glob("features")]
    words = ("reference", tmp_path / "none", "--out", tmp_path / "r.npz", "--size", 128, "--features", "pixels")
    assert "pixels computes 49,152 features" in refused(*words)
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    few = folder_of(tmp_path / "few")
    with noted(tmp_path / "notes") as seen:
        line = refused("evaluate", few.folder, "--set", LIKENESS, "--batch", 16, "--out", tmp_path / "out")
    assert "likeness computes 6 features per image" in line
    assert seen == [16]


def test_memory_is_that_of_this_machine_and_of_its_control_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = memory.available_memory()
    assert 0 < whole < 2**50
    monkeypatch.setattr(memory, "_control_groups", lambda: [tmp_path / "own", tmp_path])
    assert memory.available_memory() == pytest.approx(whole, rel=0.5)
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4000\n")
    assert memory.available_memory() == 1000
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 300\nactive_file 30\nslab 7\n")
    assert memory.available_memory() == 1330
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_memory() > 5000


def test_sizes_are_those_of_the_features() -> None:
    assert Pixels().sizes((3, 4, 5)) == (60, 0)
    assert Pixels()(torch.zeros(2, 3, 4, 5, dtype=torch.uint8)).pooled.shape == (2, 60)
