"""Data sets of Hugging Face: the same images as the folder that they were made from."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from image_files import SIZES, assert_images, component, write_tree
from sitkit.recipes.data import folder, huggingface
from sitkit.recipes.data.images import read_all
from sitkit.recipes.support.errors import UserError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree")


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    return datasets


@pytest.fixture
def rows(library: Any, tree: Path) -> Any:
    """Return the images of `tree` as rows of a Hugging Face data set."""
    features = library.Features(
        {"picture": library.Image(), "kind": library.ClassLabel(names=["cat", "dog"]), "row": library.Value("int32")}
    )
    labels = [("cat", "dog").index(name.split("/")[0]) for name in SIZES]
    images = [{"bytes": (tree / name).read_bytes(), "path": None} for name in SIZES]
    return library.Dataset.from_dict({"picture": images, "kind": labels, "row": range(4)}, features=features)


def test_imagefolder_parquet_and_saved_rows_are_the_folder(library: Any, rows: Any, tree: Path, tmp_path: Path) -> None:
    expected = folder(str(tree), 16)
    (tmp_path / "images").mkdir()
    for name in SIZES:  # there the class is the innermost folder
        (tmp_path / "images" / name.split("/")[0]).mkdir(exist_ok=True)
        (tmp_path / "images" / name.replace("deep/", "")).write_bytes((tree / name).read_bytes())
    rows.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "parts/data").mkdir(parents=True)
    rows.to_parquet(tmp_path / "parts/data/train-00000-of-00001.parquet")
    rows.select([2]).to_parquet(tmp_path / "parts/data/validation-00000-of-00001.parquet")
    rows.save_to_disk(tmp_path / "saved")
    library.DatasetDict(train=rows, test=rows.select([1])).save_to_disk(tmp_path / "both")
    for path, heldout in (
        (tmp_path / "images", "none"), (tmp_path / "rows.parquet", "none"), (tmp_path / "saved", "none"),
        (tmp_path / "parts", "validation"), (tmp_path / "both", "test"),
    ):  # fmt: skip
        split = huggingface(str(path), 16, heldout=heldout)
        assert split.classes == expected.classes
        assert torch.equal(split.training.labels, expected.training.labels)
        assert_images(split.training, read_all(expected.training))
        held = {"none": [], "validation": [2], "test": [1]}[heldout]
        assert torch.equal(read_all(split.heldout), read_all(expected.training)[held])


def test_columns_are_found_or_named(library: Any, rows: Any, tmp_path: Path) -> None:
    more = rows.add_column("again", [0, 0, 5, 5])
    more.remove_columns("kind").save_to_disk(tmp_path / "unsure")
    more.rename_column("kind", "y").save_to_disk(tmp_path / "sure")
    rows.select_columns(["picture"]).save_to_disk(tmp_path / "bare")
    rows.select_columns(["kind"]).save_to_disk(tmp_path / "blind")
    assert huggingface(str(tmp_path / "sure"), 8).classes == ("cat", "dog")
    assert huggingface(str(tmp_path / "sure"), 8, label="none").classes == ()
    assert huggingface(str(tmp_path / "bare"), 8).classes == ()
    named = huggingface(str(tmp_path / "unsure"), 8, label="again", split=0.5)
    assert named.classes == ("0", "5")
    assert sorted([*named.training.labels.tolist(), *named.heldout.labels.tolist()]) == [0, 0, 1, 1]


def test_labels_without_images_are_no_classes(library: Any, rows: Any, tmp_path: Path) -> None:
    told: list[str] = []
    names = library.ClassLabel(names=["bird", "cat", "cow", "dog"])
    for name, labels, kind in (
        ("named", [1, 1, 3, 3], names),
        ("numbers", [7, 7, 2**62, 2**62], library.Value("int64")),
    ):
        features = library.Features({"picture": library.Image(), "kind": kind})
        more = rows.select_columns(["picture"]).add_column("kind", labels).cast(features)
        library.DatasetDict(
            train=more, test=more.select([3, 0]), other=more.select([0]).map(lambda row: {"kind": 2})
        ).save_to_disk(tmp_path / name)
        split = huggingface(str(tmp_path / name), 8, label="kind", heldout="test")
        assert split.classes == {"named": ("cat", "dog"), "numbers": ("7", str(2**62))}[name]
        assert split.training.labels.tolist() == [0, 0, 1, 1]
        assert split.heldout.labels.tolist() == [1, 0]
        with pytest.raises(ValueError, match=r"other of .* has the label 2, for which there is no training image"):
            huggingface(str(tmp_path / name), 8, label="kind", heldout="other")
        told += split.notes
    assert told[0] == f"train of {tmp_path / 'named'}: 4 images of 2 classes (cat 2, dog 2)"
    assert told[1] == f"test of {tmp_path / 'named'}: 2 images of 2 classes (cat 1, dog 1)"
    assert told[2] == f"{tmp_path / 'named'}: 2 classes have no images and are dropped: bird, cow"
    assert told[5] == f"{tmp_path / 'numbers'}: the 2 labels that occur, up to {2**62}, are the classes"


def test_columns_that_hold_several_are_refused(library: Any, rows: Any, tmp_path: Path) -> None:
    names = library.ClassLabel(names=["cat", "dog"])
    images = [row["picture"] for row in rows.cast_column("picture", library.Image(decode=False))]
    several = {"images": [[one, one] for one in images], "labels": [[0, 1]] * 4, "texts": ["a"] * 4}
    features = library.Features(
        {"images": library.List(library.Image()), "labels": library.List(names), "texts": library.Value("string")}
    )
    both = library.concatenate_datasets(
        [rows.select_columns(["picture"]), library.Dataset.from_dict(several, features=features)], axis=1
    )
    both.save_to_disk(tmp_path / "several")
    for message, fields in (
        ("'labels' of .* holds several labels in a row: set label = none to ignore them", {}),
        (r"'labels' of .* holds List\(ClassLabel.*, not one label from 0 up in each row", {"label": "labels"}),
        ("'texts' of .* holds string, not one label", {"label": "texts"}),
        (r"'images' of .* holds List\(Image.*, not one image in each row", {"image": "images", "label": "none"}),
    ):
        with pytest.raises(UserError, match=rf"^data = huggingface: [^\n]*{message}[^\n]*$"):
            component("huggingface", path=str(tmp_path / "several"), size=8, **fields).build()
    assert len(huggingface(str(tmp_path / "several"), 8, label="none").training) == 4


def test_rows_stored_as_tiff_are_read(library: Any, tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((8, 8), 0x4D4D, np.uint16))
    pictures = [Image.new("CMYK", (8, 8), (0, 255, 255, 0)), deep]
    features = library.Features({"image": library.Image()})
    library.Dataset.from_dict({"image": pictures}, features=features).save_to_disk(tmp_path / "rows")
    found = read_all(huggingface(str(tmp_path / "rows"), 8).training)
    assert found[:, :, 0, 0].tolist() == [[255, 0, 0], [0x4D] * 3]


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_damaged_rows_are_skipped(
    library: Any, rows: Any, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = [row["picture"] for row in rows.cast_column("picture", library.Image(decode=False))]
    features = library.Features({"picture": library.Image(), "kind": library.ClassLabel(names=["cat", "dog", "cow"])})
    content = {"picture": [whole[0], {"bytes": b"damaged", "path": None}, None, whole[3]], "kind": [0, 2, 0, 1]}
    broken = library.Dataset.from_dict(content, features=features)
    path = tmp_path / form
    broken.save_to_disk(path) if form == "saved" else broken.to_parquet(path)
    with pytest.raises(UserError, match=r"row 1 of .*; row 2 of .* has no image; .* set data.unreadable = skip"):
        read_all(huggingface(str(path), 8).training)
    for _ in range(2):
        split = huggingface(str(path), 8, unreadable="skip")
        assert split.classes == ("cat", "dog")
        assert split.training.labels.tolist() == [0, 1]
        expected = folder(str(tmp_path / "tree"), 8).training.read(torch.tensor([0, 3]))
        assert_images(split.training, expected)
        assert split.notes[0].endswith("; 2 of 4 images are unreadable and skipped: train/1, train/2")
    note = path / "unreadable-train.json" if form == "saved" else tmp_path / "parquet.unreadable-train.json"
    assert json.loads(note.read_text())["unreadable"] == ["train/1", "train/2"]
    assert capsys.readouterr().err.count(f"checking train of {path} 4/4") == 1


def test_data_sets_that_cannot_be_used(library: Any, rows: Any, tmp_path: Path) -> None:
    more = rows.add_column("minus", [0, -1, 2, 5])
    more.remove_columns("kind").save_to_disk(tmp_path / "unsure")
    rows.select_columns(["kind"]).save_to_disk(tmp_path / "blind")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("there is no file or folder", {"path": str(tmp_path / "nowhere")}),
        ("cannot be read as parquet", {"path": str(tmp_path / "broken.parquet")}),
        ("has 0 columns of images", {"path": str(tmp_path / "blind")}),
        ("set label to one of row, minus, none", {}),
        ("no column 'minsu'", {"label": "minsu"}),
        ("'minus' of .* labels from 0 up", {"label": "minus"}),
        ("no split 'test'; it has: train", {"heldout": "test", "label": "none"}),
        ("size is", {"size": 0}),
    ]
    for message, fields in wrong:
        with pytest.raises(UserError, match=rf"^data = huggingface: [^\n]*{message}[^\n]*$"):
            component("huggingface", **{"path": str(tmp_path / "unsure"), "size": 8, **fields}).build()


def test_damaged_rows_are_named(library: Any, rows: Any, tmp_path: Path) -> None:
    images = [{"bytes": b"damaged", "path": "x.png"}, {"bytes": None, "path": str(tmp_path / "lost.png")}, None]
    broken = library.Dataset.from_dict({"image": images}, features=library.Features({"image": library.Image()}))
    (tmp_path / "lost.png").touch()
    broken.save_to_disk(tmp_path / "broken")
    os.remove(tmp_path / "lost.png")
    split = huggingface(str(tmp_path / "broken"), 8)
    for number, message in enumerate(["x.png.* cannot be read as an image", "lost.png.* cannot be opened", "no image"]):
        with pytest.raises(UserError, match=f"^row {number} of train of .*broken.*{message}"):
            split.training.read(torch.tensor([number]))
