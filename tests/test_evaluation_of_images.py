"""Evaluation of given images: arrays and folders of files, compared with one another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from image_files import encode
from measuring import LIKENESS, OF_PIXELS, evaluated, means, noted, refused, report_in, sitkit, write_arrays, written
from sitkit.recipes.evaluation.compute_metrics import WANTED
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.metrics import frechet_distance, kernel_distance, moments, precision_recall

SIZE = (6, 8)


def drawn(seed: int, count: int = 24) -> np.ndarray:
    """Return images in colour, (N, 6, 8, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


LABELS = np.arange(24) % 3


def as_array(place: Path, pixels: np.ndarray) -> Path:
    file = place.with_suffix(".npz")
    write_arrays(file, arr_0=pixels, labels=LABELS[: len(pixels)] * 7)
    return file


def as_files(place: Path, pixels: np.ndarray) -> Path:
    for number, image in enumerate(pixels):
        file = place / f"{LABELS[number] * 7}" / "deep" / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(image))
    return place


def as_loose_files(place: Path, pixels: np.ndarray) -> Path:
    """Write files without classes, which lie on their sides, as Exif says."""
    place.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise is needed
    for number, image in enumerate(pixels):
        (place / f"{number:02d}.png").write_bytes(encode(np.rot90(image).copy(), exif=exif))
    return place


def as_samples(place: Path, pixels: np.ndarray) -> Path:
    manifest: dict[str, Any] = {
        "checkpoint": "by hand",
        "seed": 0,
        "recipe": read_recipe("digits").model_dump(mode="json"),
    }
    tensor, labels = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(LABELS[: len(pixels)])
    samples = written(place, tensor, labels, **manifest)
    content = samples.content.model_copy(update={"classes": ("0", "7", "14")})
    type(samples)(place, content).write()
    return place


KINDS: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "array": as_array,
    "files": as_files,
    "loose": as_loose_files,
    "samples": as_samples,
}


def expected_metrics(one: Tensor, other: Tensor) -> dict[str, float]:
    distance = frechet_distance(*moments(one), *moments(other))
    precision, recall = precision_recall(other, one, 3)
    return dict(zip(OF_PIXELS, (distance, precision, recall, kernel_distance(other, one)), strict=True))


@pytest.mark.parametrize("of", KINDS)
def test_any_samples_are_measured_by_any_images(tmp_path: Path, of: str) -> None:
    """The numbers are those of the pixels, and the classes those of folders, labels or shards."""
    one, other = drawn(0), drawn(1)
    expected = expected_metrics(
        *(torch.from_numpy(x).permute(0, 3, 1, 2).flatten(1).float() / 255 for x in (one, other))
    )
    source = KINDS[of](tmp_path / "one", one)
    for kind, write in KINDS.items():
        report = evaluated(source, "--reference", write(tmp_path / kind, other), "--out", tmp_path / f"out-{kind}")
        assert {name: means(report)[name] for name in OF_PIXELS} == pytest.approx(expected, rel=1e-5, abs=1e-9)
        assert (WANTED in means(report)) == ("loose" not in (of, kind))
        assert [row["samples"] for row in report["classes"]] == [8] * 3 * ("loose" not in (of, kind))
        assert sorted(row["class"] for row in report["classes"]) == sorted(("0", "7", "14") * bool(report["classes"]))
        assert (report["manifest"]["samples"], report["manifest"]["draws"]) == (24, 1)
        page = (tmp_path / f"out-{kind}/report.html").read_text()
        assert ("; NFE: " in page) == (of == "samples")


def test_images_are_looked_at_once_until_they_are_others(tmp_path: Path) -> None:
    source, other = as_array(tmp_path / "one", drawn(0)), as_files(tmp_path / "other", drawn(1))
    words = (source, "--reference", other, "--set", LIKENESS, "--out", tmp_path / "out")
    found = []
    for seed, seen_now in ((0, [24, 24]), (0, []), (2, [24])):
        if seed:
            as_array(tmp_path / "one", drawn(seed))
        with noted(tmp_path / "notes") as seen:
            report = evaluated(*words)
        assert seen == seen_now
        assert report["manifest"]["samples_from"] == str(source)
        found.append((means(report), report["manifest"]["samples_sha256"]))
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]
    assert found[0][1] != found[2][1]


def test_a_report_stands_beside_images(tmp_path: Path) -> None:
    """Not among them, where it would change what a folder holds."""
    other = as_array(tmp_path / "other", drawn(1))
    for source in (as_array(tmp_path / "a.b", drawn(0)), as_files(tmp_path / "c.d", drawn(0))):
        before = sorted(tmp_path.rglob("*"))
        code, said = sitkit("evaluate", source, "--reference", other)
        assert code == 0, said
        place = tmp_path / ("a-evaluation" if source.suffix == ".npz" else "c.d-evaluation")
        assert said.splitlines()[-1] == str(place / "report.html")
        assert report_in(place)["manifest"]["reference"]["source"] == str(other)
        assert [path for path in sorted(tmp_path.rglob("*")) if place not in (path, *path.parents)] == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("{array}", "has no data to compare with: set them by --reference"),
        ("{files}", "has no data to compare with: set them by --reference"),
        ("{moments} --reference {array}", "it has: mu, sigma; statistics can only be a --reference"),
        ("{text} --reference {array}", "is not an npz of samples, arr_0 (N, H, W, 3) uint8: "),
        ("{grey} --reference {array}", "arr_0 is uint8 (12, 6, 8, 1), but samples must be (N, H, W, 3) uint8"),
        ("{none} --reference {array}", "arr_0 is uint8 (0, 6, 8, 3), but samples must be (N, H, W, 3) uint8"),
        ("{negative} --reference {array}", "labels must be 0 or greater, got -1"),
        ("{few} --reference {array}", "there are 9 samples: metrics need 10 or more"),
        ("{empty} --reference {array}", "an .npz with arr_0 or a folder of images"),
        ("{lost} --reference {array}", "there is no run in"),
        ("{uneven} --reference {array}", "23.png is 9x6, 00.png 8x6: samples must have one size"),
        ("{array} --reference {uneven}", "23.png is 9x6, samples are 8x6: --crop crops images as ADM does"),
        ("{array} --reference {files} --crop", "images must be square, got 6 x 8"),
        ("{array} --reference {wide}", "has images of 9x6, but samples are 8x6"),
        ("{array} --reference {run}", "is a run: `sitkit sample` generates samples that can be a reference"),
        ("{array} --reference {lost}", "there is no reference"),
        ("{array} --reference {files} --set sampler.steps=3", "of existing samples only evaluation can be"),
        ("{array} --reference {files} --set evaluation.features=pixel", "did you mean 'pixels'"),
    ],
)
def test_files_that_are_not_samples_are_one_line(tmp_path: Path, words: str, said: str) -> None:
    places = {name: tmp_path / name for name in ("files", "empty", "lost", "uneven", "wide", "run")}
    places |= {
        name: tmp_path / f"{name}.npz" for name in ("array", "moments", "text", "grey", "none", "negative", "few")
    }
    as_array(tmp_path / "array", drawn(0))
    as_files(places["files"], drawn(0))
    as_array(tmp_path / "few", drawn(0)[:9])
    write_arrays(places["moments"], mu=np.zeros(3), sigma=np.eye(3))
    write_arrays(places["grey"], arr_0=drawn(0, 12)[..., :1])
    write_arrays(places["none"], arr_0=drawn(0, 0))
    write_arrays(places["negative"], arr_0=drawn(0), labels=LABELS - 1)
    places["text"].write_text("no zip")
    places["empty"].mkdir()
    places["run"].mkdir()
    (places["run"] / "recipe.json").write_text("{}")
    for number, image in enumerate(drawn(0)):
        places["uneven"].mkdir(exist_ok=True)
        wide = np.concatenate([image, image[:, : number == 23]], 1)
        (places["uneven"] / f"{number:02d}.png").write_bytes(encode(wide))
    written(places["wide"], torch.zeros(12, 3, 6, 9, dtype=torch.uint8))
    assert said in refused("evaluate", *words.format(**places).split(), "--out", tmp_path / "out")
    assert not [*tmp_path.glob("out/report.*")]
