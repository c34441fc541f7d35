"""Reference images, their features and statistics, against definitions; damage to them is one line."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from image_files import encode, noise_of, reference
from measuring import Likeness, noted, refused, sitkit, write_arrays, written
from sitkit.recipes.evaluation import feature_statistics as gathering
from sitkit.recipes.evaluation.feature_extraction import (
    FeatureExtraction,
    extract_features,
    feature_blocks,
    read_blocks,
)
from sitkit.recipes.evaluation.feature_statistics import (
    FeatureStatistics,
    compute_statistics,
    load_statistics,
    save_statistics,
)
from sitkit.recipes.evaluation.image_sources import open_array, open_files
from sitkit.recipes.evaluation.reference import Reference, open_reference, state_of
from sitkit.recipes.experiment import slots
from sitkit.recipes.features import Features
from sitkit.recipes.metrics import inception_score
from sitkit.recipes.storage.work_partition import WorkPartition
from sitkit.recipes.support.errors import UserError
from worlds import drawn

GREY, COLOUR = (1, 8, 8), (3, 8, 8)


def how(cache: Path, kind: str = "measuring:Likeness", batch: int = 256) -> FeatureExtraction:
    component = slots.FEATURES.read(kind)
    return FeatureExtraction(component, component.build(), batch, torch.device("cpu"), WorkPartition(), cache)


def images(count: int, shape: tuple[int, int, int] = COLOUR, seed: int = 0) -> Tensor:
    return torch.randint(256, (count, *shape), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def features(count: int) -> Features:
    pooled, spatial = drawn(count, 5, 0, mean=100.0).float(), drawn(count, 3, 1).float()
    return Features(pooled, spatial, drawn(count, 4, 2).softmax(1).float())


def in_blocks(found: Features, size: int) -> Iterator[tuple[Features, int]]:
    columns = [torch.split(one, size) for one in (found.pooled, found.spatial, found.probs) if one is not None]
    for number, parts in enumerate(zip(*columns, strict=True)):
        yield Features(*parts), number


def test_statistics_are_those_of_all_features_together() -> None:
    found, labels = features(700), torch.arange(700) % 7
    assert found.spatial is not None
    known = compute_statistics(in_blocks(found, 256), 700, labels, keep=50)
    assert known.spatial is not None
    for (mean, covariance), x in ((known.pooled, found.pooled), (known.spatial, found.spatial)):
        double = x.double().numpy()
        np.testing.assert_allclose(mean, double.mean(0), rtol=1e-13)
        np.testing.assert_allclose(covariance, np.cov(double.T), rtol=1e-10, atol=1e-13)
    assert known.numbers.tolist() == sorted(set(known.numbers.tolist()))
    assert len(known.numbers) == 50
    assert known.numbers.max() > 600
    assert torch.equal(known.features, found.pooled[known.numbers])
    assert known.labels is not None
    assert torch.equal(known.labels, labels[known.numbers])
    same = compute_statistics(in_blocks(features(700), 100), 700, None, keep=50)
    assert torch.equal(same.numbers, known.numbers)
    assert same.labels is None
    assert len(compute_statistics(in_blocks(found, 256), 700, None, keep=10_000).features) == 700


def test_moments_of_halves_are_those_of_a_partition() -> None:
    found = features(700)
    known = compute_statistics(in_blocks(found, 256), 700, None, keep=0)
    first = torch.arange(700) % 256 < torch.tensor([128, 128, 94]).repeat_interleave(torch.tensor([256, 256, 188]))
    assert known.halves is not None
    for (mean, covariance), chosen in zip(known.halves, (first, ~first), strict=True):
        double = found.pooled[chosen].double().numpy()
        np.testing.assert_allclose(mean, double.mean(0), rtol=1e-13)
        np.testing.assert_allclose(covariance, np.cov(double.T), rtol=1e-10, atol=1e-13)
    assert compute_statistics(in_blocks(features(3), 256), 3, None, keep=0).halves is None


@pytest.mark.parametrize("block", [64, 256, 700])
def test_the_inception_score_is_the_mean_over_splits_that_are_full(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    found = features(700)
    assert found.probs is not None
    assert compute_statistics(in_blocks(found, block), 700, None, 9).score == pytest.approx(
        inception_score(found.probs, 1)
    )
    monkeypatch.setattr(gathering, "INCEPTION_SPLIT", 200)
    expected = inception_score(found.probs[:600], 3)
    assert compute_statistics(in_blocks(found, block), 700, None, 9).score == pytest.approx(expected, rel=1e-12)
    assert compute_statistics(in_blocks(Features(found.pooled), block), 700, None, 9).score is None


def test_features_that_are_not_finite_and_too_few_images_are_refused() -> None:
    found = features(600)
    found.pooled[400, 2] = torch.nan
    with pytest.raises(UserError, match=r"^features of images 256 and following: features are not finite$"):
        compute_statistics(in_blocks(found, 256), 600, None, keep=9)
    with pytest.raises(UserError, match=r"^statistics need two images or more, got 1$"):
        compute_statistics(in_blocks(features(1), 256), 1, None, keep=9)


def test_features_are_computed_once_and_divided_among_processes(tmp_path: Path) -> None:
    """Each process computes its blocks; cached blocks are not computed again; batches do not matter."""
    samples = written(tmp_path / "samples", images(600), shard=256)
    whole, shared = (feature_blocks(tmp_path / name, 600) for name in ("whole", "shared"))
    given: dict[str, Any] = {"device": torch.device("cpu"), "what": "looking"}
    with noted(tmp_path / "notes") as seen:
        extract_features(samples, Likeness(), whole, batch=256, partition=WorkPartition(), **given)
        extract_features(samples, Likeness(), whole, batch=256, partition=WorkPartition(), **given)
    assert seen == [256, 256, 88]
    with noted(tmp_path / "notes") as seen:
        extract_features(samples, Likeness(), shared, batch=100, partition=WorkPartition(1, 2), **given)
    assert seen == [100, 100, 56]
    assert shared.missing() == [0, 2]
    extract_features(samples, Likeness(), shared, batch=100, partition=WorkPartition(0, 2), **given)
    whole.file(1).write_bytes(b"")
    with noted(tmp_path / "notes") as seen:
        extract_features(samples, Likeness(), whole, batch=256, partition=WorkPartition(), **given)
    assert seen == [256]
    expected = Likeness()(samples.read(torch.arange(600)))
    for blocks in (whole, shared):
        found = [one for one, _ in read_blocks(blocks)]
        torch.testing.assert_close(torch.cat([one.pooled for one in found]), expected.pooled)
        torch.testing.assert_close(torch.cat([one.spatial for one in found]), expected.spatial)  # type: ignore[misc]
        torch.testing.assert_close(torch.cat([one.probs for one in found]), expected.probs)  # type: ignore[misc]
    one, other = (compute_statistics(read_blocks(blocks), 600, None, 9).sha256 for blocks in (whole, shared))
    assert one == other
    changed = images(600)
    changed[599, 0, 0, 0] ^= 1
    blocks = feature_blocks(tmp_path / "changed", 600)
    extract_features(
        written(tmp_path / "others", changed), Likeness(), blocks, batch=256, partition=WorkPartition(), **given
    )
    assert compute_statistics(read_blocks(blocks), 600, None, 9).sha256 != one


def known(labels: bool = True) -> FeatureStatistics:
    return compute_statistics(in_blocks(features(40), 16), 40, torch.arange(40) % 4 if labels else None, keep=20)


def test_statistics_come_back_as_they_were_saved(tmp_path: Path) -> None:
    saved = known()
    save_statistics(saved, {"source": "own", "image": [1, 8, 8]}, tmp_path / "new/s.npz")
    found, about = load_statistics(tmp_path / "new/s.npz")
    assert about == {"source": "own", "image": [1, 8, 8], "count": 40, "sha256": saved.sha256}
    assert (found.count, found.score, found.sha256, found.halves) == (40, saved.score, saved.sha256, None)
    for one, other in ((found.pooled, saved.pooled), (found.spatial or (), saved.spatial or ())):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    for name in ("features", "numbers", "labels"):
        assert torch.equal(getattr(found, name), getattr(saved, name))
    with np.load(tmp_path / "new/s.npz", allow_pickle=False) as arrays:  # ADM's names, for ADM's evaluator
        assert np.array_equal(arrays["mu"], saved.pooled[0].numpy())
        assert np.array_equal(arrays["sigma_s"], saved.spatial[1].numpy())  # type: ignore[index]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/below.npz cannot be written"):
        save_statistics(saved, {}, tmp_path / "file/below.npz")


def arrays(**changed: Any) -> dict[str, Any]:
    """Return statistics in ADM's format."""
    mu, sigma = (value.numpy() for value in known().pooled)
    return {name: value for name, value in ({"mu": mu, "sigma": sigma} | changed).items() if value is not None}


OWN = {"about": np.array('{"count": 40}'), "features": np.zeros((2, 5)), "numbers": np.arange(2)}


def with_nan(size: int) -> np.ndarray:
    found = np.eye(size)
    found[1, 2] = np.nan
    return found


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"sigma": None}, "holds no statistics mu and sigma"),
        ({"sigma": np.eye(4)}, r"\(sigma is float64 \(4, 4\) instead of real numbers of shape \(5, 5\)\)"),
        ({"sigma": np.zeros(5)}, r"\(sigma is float64 \(5,\) instead of real numbers of shape \(5, 5\)\)"),
        ({"sigma": with_nan(5)}, "mu or sigma has numbers that are not finite, or none"),
        ({"mu": np.full(5, np.inf)}, "mu or sigma has numbers that are not finite"),
        ({"mu_s": np.zeros(3)}, "holds no statistics mu and sigma"),
        ({"mu_s": np.zeros(3), "sigma_s": with_nan(3)}, "mu_s or sigma_s has numbers that are not finite"),
        ({"mu": np.array(["a"] * 5)}, "holds no statistics mu and sigma"),
        ({"mu": np.array([None] * 5)}, "holds no statistics mu and sigma"),
        ({"sigma": -np.eye(5)}, "sigma is not a covariance: it has negative variances"),
        ({"sigma": np.eye(5) + np.eye(5, k=1)}, "sigma is not a covariance: it has negative variances or is not symm"),
        ({"about": np.array("{")}, r"holds no statistics \(about: Invalid JSON"),
        ({"about": np.array("[]")}, r"holds no statistics \(about: Input should be an object"),
        ({"about": np.array('{"features": 1}')}, r"holds no statistics \(about.features: Input should be an object"),
        (
            {"about": np.array('{"count": "many"}')},
            r"holds no statistics \(about.count: Input should be a valid integer",
        ),
        ({"about": np.array(5)}, r"about is int64 \(\) instead of text of shape \(\)"),
        (OWN | {"features": np.zeros((2, 4))}, r"features is float64 \(2, 4\) instead of floating-point .*\(N, 5\)"),
        (OWN | {"features": np.full((2, 5), np.nan)}, "features are not finite"),
        (OWN | {"features": None}, "it has no features"),
        (OWN | {"numbers": np.arange(3)}, r"numbers is int64 \(3,\) instead of integers of shape \(2,\)"),
        (OWN | {"numbers": np.array([0, 40])}, "numbers has indices that are not below the number of images, 40"),
        (OWN | {"labels": np.array(["a", "b"])}, r"labels is <U1 \(2,\) instead of integers"),
        (OWN | {"score": np.array(np.inf)}, "score is inf"),
        (OWN | {"score": np.array([1.0, 2.0])}, r"score is float64 \(2,\) instead of floating-point numbers of shape"),
    ],
)
def test_statistics_that_are_none_are_one_line(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    np.savez(tmp_path / "s.npz", **arrays(**changed))
    with pytest.raises(UserError, match=said) as problem:
        load_statistics(tmp_path / "s.npz")
    assert "\n" not in str(problem.value)
    assert "s.npz" in str(problem.value)


def test_no_bit_of_statistics_can_change_unseen(tmp_path: Path) -> None:
    file = tmp_path / "s.npz"
    save_statistics(known(), {}, file)
    content, (expected, _) = file.read_bytes(), load_statistics(file)
    for place in range(0, len(content), 7):
        file.write_bytes(content[:place] + bytes([content[place] ^ (1 << place // 7 % 8)]) + content[place + 1 :])
        try:
            found, _ = load_statistics(file)
        except UserError:
            continue
        assert torch.equal(found.pooled[1], expected.pooled[1])
        assert torch.equal(found.features, expected.features)
    file.write_bytes(content[:-1])
    with pytest.raises(UserError, match="holds no statistics"):
        load_statistics(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return 8 x 8 grey images in folders named by class."""
    for number in range(24):
        file = tmp_path / "images" / "abc"[number % 3] / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(noise_of(8, 8 + number)[:, :8]))
    return tmp_path / "images"


def test_a_folders_images_are_its_files_and_their_classes_its_folders(folder: Path) -> None:
    found = open_files(folder, GREY, ("c", "a", "b"), crop=False)
    assert [Path(name).name for name in found.names[:9]] == [f"{number:02d}.png" for number in range(0, 24, 3)] + [
        "01.png"
    ]
    assert found.labels is not None
    assert found.labels.tolist() == [1] * 8 + [2] * 8 + [0] * 8
    read = found.read(torch.tensor([9, 0]))
    for pixels, number in zip(read, (4, 0), strict=True):
        assert np.array_equal(pixels[0].numpy(), noise_of(8, 8 + number)[:, :8])
    assert torch.equal(open_files(folder, COLOUR, (), crop=False).read(torch.tensor([9, 0])), read.expand(-1, 3, 8, 8))
    for classes in ((), ("a", "b"), ("x", "y")):
        assert open_files(folder, GREY, classes, crop=False).labels is None


def test_images_of_other_sizes_and_in_colour_are_refused(folder: Path) -> None:
    picture = noise_of(21, 19, 3)
    (folder / "a/00.png").write_bytes(encode(picture))
    at = torch.tensor([0])
    with pytest.raises(UserError, match=r"00.png is 19x21, samples are 8x8: --crop crops images as ADM does"):
        open_files(folder, COLOUR, (), crop=False).read(at)
    cut = open_files(folder, COLOUR, (), crop=True).read(at)
    assert np.array_equal(cut[0].permute(1, 2, 0).numpy(), reference(picture, 8))
    with pytest.raises(UserError, match=r"00.png has images in colour, but samples have 1 channels"):
        open_files(folder, GREY, (), crop=True).read(at)
    (folder / "a/00.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"00.png cannot be read as an image"):
        open_files(folder, GREY, (), crop=False).read(at)
    with pytest.raises(UserError, match="images must be square, got 8 x 6"):
        open_files(folder, (1, 8, 6), (), crop=True)


def test_an_arrays_images_are_read_where_they_stand(tmp_path: Path) -> None:
    pixels = images(7, (8, 8, 3)).numpy()
    (tmp_path / "after").mkdir()
    given: list[tuple[str, Callable[..., None], dict[str, Any]]] = [
        ("stored", write_arrays, {}),
        ("compressed", np.savez_compressed, {}),
        ("after/others", write_arrays, {"a": np.arange(9), "labels": np.arange(7)}),
    ]
    for name, pack, others in given:
        pack(tmp_path / f"{name}.npz", **others, arr_0=pixels)
        found = open_array(tmp_path / f"{name}.npz", COLOUR)
        assert isinstance(found.pixels, np.memmap) == (name != "compressed")
        numbers = torch.tensor([6, 0, 6])
        assert np.array_equal(found.read(numbers).permute(0, 2, 3, 1).numpy(), pixels[[6, 0, 6]])
        assert (found.labels is None) == (not others)
    with pytest.raises(UserError, match=r"stored.npz has images in colour, but samples have 1 channels"):
        open_array(tmp_path / "stored.npz", GREY).read(torch.tensor([0]))
    np.savez(tmp_path / "grey.npz", arr_0=pixels[..., :1].repeat(3, -1))
    assert open_array(tmp_path / "grey.npz", GREY).read(torch.tensor([3]))[0, 0].tolist() == pixels[3, ..., 0].tolist()
    for shape in ((3, 16, 16), (1, 8, 9)):
        with pytest.raises(UserError, match=r"arr_0 has images \(8, 8, 3\) uint8, but samples are"):
            open_array(tmp_path / "stored.npz", shape)
    np.savez(tmp_path / "floats.npz", arr_0=pixels.astype(np.float32))
    with pytest.raises(UserError, match=r"arr_0 has images \(8, 8, 3\) float32, but samples are \(8, 8, 3\) uint8"):
        open_array(tmp_path / "floats.npz", COLOUR)


PIXELS = images(7, (8, 8, 3)).numpy()


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"labels": np.eye(7)}, r"labels is float64 \(7, 7\) instead of integers of shape \(7,\)"),
        ({"labels": np.eye(7, dtype=np.int64)}, r"labels is int64 \(7, 7\) instead of integers of shape \(7,\)"),
        ({"labels": np.arange(6)}, r"labels is int64 \(6,\) instead of integers of shape \(7,\)"),
        ({"labels": np.array(["a"] * 7)}, "labels is <U1"),
        ({"labels": np.array([None] * 7)}, "labels .* neither numbers nor text"),
        ({"arr_0": PIXELS[:0]}, "arr_0 has no image"),
        ({"arr_0": PIXELS.transpose(0, 3, 1, 2)}, r"arr_0 has images \(3, 8, 8\) uint8, but samples are \(8, 8, 3\)"),
        ({"arr_0": np.array([None])}, "arr_0 is of dtype '|O', neither numbers nor text"),
        ({"arr_0": None, "x": PIXELS, "y": PIXELS}, "not exactly one other array .*; it has: x, y"),
        ({"arr_0": None, "x": np.array([None])}, "not exactly one other array .*; it has: x"),
    ],
)
def test_arrays_of_other_shapes_and_kinds_are_one_line(tmp_path: Path, held: dict[str, Any], said: str) -> None:
    whole = {name: value for name, value in ({"arr_0": PIXELS} | held).items() if value is not None}
    np.savez(tmp_path / "r.npz", **whole)
    with pytest.raises(UserError, match=rf"^[^\n]*r\.npz[^\n]*{said}[^\n]*$"):
        open_array(tmp_path / "r.npz", COLOUR, "abc")


def test_arrays_in_fortrans_order_and_of_another_name_are_taken(tmp_path: Path) -> None:
    for name, array in (("arr_0", np.asfortranarray(PIXELS)), ("images", PIXELS)):
        np.savez(tmp_path / "r.npz", **{name: array}, strange=np.array([None]))  # type: ignore[arg-type]
        found = open_array(tmp_path / "r.npz", COLOUR).read(torch.arange(7))
        assert np.array_equal(found.permute(0, 2, 3, 1).numpy(), PIXELS)


def test_labels_of_a_reference_are_class_indices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Classes with numeric names have these indices, others follow their order."""
    for labels, classes, expected in (
        ([2, 1, 0, 0, 0, 0, 0], ("a", "b", "c"), [2, 1, 0, 0, 0, 0, 0]),
        ([7, 0, 0, 0, 0, 0, 7], ("0", "7"), [1, 0, 0, 0, 0, 0, 1]),
        ([10, 2, 2, 2, 2, 2, 1], ("1", "10", "2"), [1, 2, 2, 2, 2, 2, 0]),
        ([1, 2, 2, 2, 2, 2, 1], ("01", "02", "03"), [1, 2, 2, 2, 2, 2, 1]),
        ([3, 1, 0, 0, 0, 0, 0], ("a", "b", "c"), None),
        ([-1, 1, 0, 0, 0, 0, 0], ("a", "b", "c"), None),
    ):
        np.savez(tmp_path / "r.npz", arr_0=PIXELS, labels=np.array(labels))
        found = open_array(tmp_path / "r.npz", COLOUR, classes).labels
        assert (found is None) == (expected is None)
        assert found is None or found.tolist() == expected
    assert "r.npz: its labels are ignored, because samples have no class 3\n" in capsys.readouterr().err


def of(path: Path, cache: Path, image: tuple[int, int, int] = COLOUR, kind: str = "measuring:Likeness") -> Reference:
    found = open_reference(path, image, tuple("abc"), how(cache, kind), crop=False)
    assert found is not None
    return found


def test_adms_statistics_are_taken_and_its_images_show_neighbours(tmp_path: Path) -> None:
    """They are of more images than those of `arr_0`."""
    pixels = images(20)
    file = tmp_path / "adm.npz"
    moments = {"mu": np.arange(6.0), "sigma": np.eye(6), "mu_s": np.arange(4.0), "sigma_s": 2 * np.eye(4)}
    write_arrays(file, **moments, arr_0=pixels.permute(0, 2, 3, 1).numpy())
    found = of(file, tmp_path / "cache")
    assert found.statistics.pooled[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert found.statistics.spatial is not None
    assert torch.equal(found.statistics.spatial[1], 2 * torch.eye(4, dtype=torch.float64))
    assert found.statistics.count is None
    torch.testing.assert_close(found.statistics.features, Likeness()(pixels).pooled[found.statistics.numbers])
    assert found.images is not None
    assert len(found.images) == len(found.statistics.features) == 20
    assert re.fullmatch("[0-9a-f]{64}", found.about["sha256"])
    own = of(file, tmp_path / "cache", kind="pixels")  # which Inception's statistics do not contain
    np.testing.assert_allclose(own.statistics.pooled[0], pixels.flatten(1).double().mean(0) / 255, rtol=1e-6)
    write_arrays(file, **moments)
    found = of(file, tmp_path / "cache")
    assert (found.images, len(found.statistics.features)) == (None, 0)
    with pytest.raises(UserError, match=r"adm.npz has no images arr_0, and no mu and sigma of pixels"):
        of(file, tmp_path / "cache", kind="pixels")
    write_arrays(file, **moments | {"mu": np.full(6, np.nan)})
    with pytest.raises(UserError, match="mu or sigma has numbers that are not finite"):
        of(file, tmp_path / "cache")


def test_a_reference_is_looked_at_once_until_it_is_another(folder: Path, tmp_path: Path) -> None:
    with noted(tmp_path / "notes") as seen:
        first = of(folder, tmp_path / "cache", GREY)
        again = of(folder, tmp_path / "cache", GREY)
    assert seen == [24]
    assert torch.equal(first.statistics.pooled[1], again.statistics.pooled[1])
    assert first.about == again.about
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".npz"]
    other = '{kind = "measuring:Likeness", tag = "b"}'
    for changed, count in ((False, 1), (True, 2)):
        if changed:
            (folder / "a/00.png").write_bytes(encode(noise_of(8, 9)[:, 1:]))
        with noted(tmp_path / "notes") as seen:
            of(folder, tmp_path / "cache", GREY, other)
            of(folder, tmp_path / "cache", GREY)
        assert seen == [24] * count
    (folder / "c/23.png").unlink()
    assert of(folder, tmp_path / "cache", GREY).statistics.count == 23


def test_statistics_once_for_all_are_those_of_the_images(folder: Path, tmp_path: Path) -> None:
    """Statistics written by `sitkit reference`, which resumes where it stopped."""
    out = tmp_path / "new" / "r.npz"
    words = ["reference", folder, "--out", out, "--size", 8, "--channels", 1, "--features", "measuring:Likeness"]
    code, said = sitkit(*words)
    assert (code, said.splitlines()[-1]) == (0, f"{out}: statistics of 24 images by likeness")
    assert [*out.parent.iterdir()] == [out]
    own, found = of(folder, tmp_path / "cache", GREY), of(out, tmp_path / "cache", GREY)
    assert found.images is None
    assert torch.equal(own.statistics.pooled[1], found.statistics.pooled[1])
    assert torch.equal(own.statistics.features, found.statistics.features)
    assert own.statistics.sha256 == found.statistics.sha256
    assert found.about["source"] == str(folder)
    assert re.fullmatch("[0-9a-f]{64}", found.about["file_sha256"])
    for kind, name in (
        ("pixels", "pixels none"),
        ('{kind = "measuring:Likeness", tag = "b"}', "likeness bbbbbbbbbbbb"),
    ):
        with pytest.raises(
            UserError, match=f"r.npz has statistics of likeness a{{12}}, and evaluation.features is {name}"
        ):
            of(out, tmp_path / "cache", GREY, kind)
    with pytest.raises(UserError, match=r"r.npz has statistics of images \[1, 8, 8\], but samples are \[3, 8, 8\]"):
        of(out, tmp_path / "cache")
    for text in ("no zip", out.read_bytes()[:-1]):
        out.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(UserError, match=r"r.npz is neither a folder of images nor an npz: it is damaged"):
            of(out, tmp_path / "cache", GREY)


def test_paths_that_cannot_be_looked_at_are_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.npz")
    for path, said in (
        (Path("x" * 5000), "cannot be opened: File name too long"),
        (tmp_path / "nowhere.npz", "there is no reference"),
        (tmp_path / "fifo.npz/below", "there is no reference"),
        (tmp_path / os.fsdecode(b"caf\xe9.npz"), r"the name .*caf\\xe9\.npz is not UTF-8: rename it"),
        (Path("a\0b"), "null"),
    ):
        for look in (lambda path: of(path, tmp_path / "cache"), state_of):
            with pytest.raises(UserError, match=rf"^[^\n]*{said}[^\n]*$"):
                look(path)
    with pytest.raises(UserError, match=r"fifo.npz is neither .*: it is not a regular file"):
        of(tmp_path / "fifo.npz", tmp_path / "cache")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("{folder} --out {new}.txt", "--out must end in .npz, got"),
        ("{folder} --out {new}.npz --size 9 --channels 1", "00.png is 8x8, samples are 9x9: --crop crops images"),
        ("{folder} --out {new}.npz --size 8 --channels 1 --features pixel", "did you mean 'pixels'"),
        ("{new} --out {new}.npz", "there is no reference"),
        ("{empty} --out {new}.npz", "has no image"),
        ("{single} --out {new}.npz --size 8 --channels 1", "has 1 images: statistics need two or more"),
    ],
)
def test_a_reference_that_is_none_is_one_line(folder: Path, tmp_path: Path, words: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "single").mkdir()
    shutil.copy(folder / "a/00.png", tmp_path / "single")
    places = {"folder": folder} | {name: tmp_path / name for name in ("new", "empty", "single")}
    more = [] if "--features" in words else ["--features", "measuring:Likeness"]
    assert said in refused("reference", *words.format(**places).split(), *more)
    assert not (tmp_path / "new.npz").exists()


def test_files_of_an_export_are_a_reference_with_classes(tmp_path: Path) -> None:
    samples = written(tmp_path / "samples", images(20), torch.arange(20) % 3)
    assert sitkit("export", samples.folder, "--out", tmp_path / "png")[0] == 0
    assert sitkit("export", samples.folder, "--out", tmp_path / "x.npz")[0] == 0
    names = json.loads((tmp_path / "png/labels.json").read_text())
    for name, letter in names.items():
        (tmp_path / "sorted" / letter).mkdir(parents=True, exist_ok=True)
        (tmp_path / "png" / name).rename(tmp_path / "sorted" / letter / name)
        with Image.open(tmp_path / "sorted" / letter / name) as picture:
            assert picture.size == (8, 8)
    files, array = (of(tmp_path / name, tmp_path / "cache") for name in ("sorted", "x.npz"))
    assert sorted(files.statistics.labels.tolist()) == sorted(array.statistics.labels.tolist())  # type: ignore[union-attr]
    torch.testing.assert_close(files.statistics.pooled[1], array.statistics.pooled[1])
