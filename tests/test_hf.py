"""Hugging Face's formats: the same images as the folder that they were made of."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from image_files import SIZES, assert_images, component, write_tree
from sitkit.recipes.data import folder, huggingface
from sitkit.recipes.data.images import read_all
from sitkit.recipes.problem import Problem


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
    """Return the images of `tree`, as Hugging Face's rows."""
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
    assert named.classes == tuple("012345")
    assert sorted([*named.training.labels.tolist(), *named.heldout.labels.tolist()]) == [0, 0, 5, 5]


def test_data_sets_that_cannot_be_used(library: Any, rows: Any, tmp_path: Path) -> None:
    more = rows.add_column("minus", [0, -1, 2, 5])
    more.remove_columns("kind").save_to_disk(tmp_path / "unsure")
    rows.select_columns(["kind"]).save_to_disk(tmp_path / "blind")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("there is no file or folder", {"path": str(tmp_path / "nowhere")}),
        ("cannot be read as parquet", {"path": str(tmp_path / "broken.parquet")}),
        ("has 0 columns of images", {"path": str(tmp_path / "blind")}),
        ("label = row, minus or none", {}),
        ("no column 'minsu'", {"label": "minsu"}),
        ("'minus' of .* labels from 0 up", {"label": "minus"}),
        ("no part 'test'; it has: train", {"heldout": "test", "label": "none"}),
        ("size is", {"size": 0}),
    ]
    for message, fields in wrong:
        with pytest.raises(Problem, match=rf"^data = huggingface: [^\n]*{message}[^\n]*$"):
            component("huggingface", **{"path": str(tmp_path / "unsure"), "size": 8, **fields}).build()


def test_damaged_rows_are_named(library: Any, rows: Any, tmp_path: Path) -> None:
    images = [{"bytes": b"damaged", "path": "x.png"}, {"bytes": None, "path": str(tmp_path / "lost.png")}, None]
    broken = library.Dataset.from_dict({"image": images}, features=library.Features({"image": library.Image()}))
    (tmp_path / "lost.png").touch()
    broken.save_to_disk(tmp_path / "broken")
    os.remove(tmp_path / "lost.png")
    split = huggingface(str(tmp_path / "broken"), 8)
    for number, message in enumerate(["x.png.* cannot be read as an image", "lost.png.* cannot be opened", "no image"]):
        with pytest.raises(Problem, match=f"^row {number} of train of .*broken.*{message}"):
            split.training.read(torch.tensor([number]))
