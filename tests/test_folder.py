"""Folders of images: every file is an image with its number, and every skipped file is reported."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from image_files import SIZES, assert_images, component, encode, noise_of, reference, write_tree
from sitkit.recipes.data import folder
from sitkit.recipes.data.images import Images, read_all
from sitkit.recipes.support.errors import UserError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree")


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Return a folder of twelve images and no folders."""
    (tmp_path / "flat").mkdir()
    for number in range(12):
        colour = Image.new("RGB", (8, 8), (20 * number, 255 - 20 * number, 7))
        (tmp_path / f"flat/{number:02}.png").write_bytes(encode(colour))
    return tmp_path / "flat"


def test_a_folder_of_classes(tree: Path) -> None:
    split = folder(str(tree), 16)
    assert split.classes == ("cat", "dog")
    assert split.training.labels.tolist() == [0, 0, 1, 1]
    assert len(split.heldout) == 0
    assert split.heldout.read(torch.zeros(0, dtype=torch.int64)).shape == (0, 3, 16, 16)
    expected = [reference(noise_of(*sides, 3), 16) for sides in SIZES.values()]
    assert_images(split.training, torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2))


def test_a_folder_of_files_alone(flat: Path) -> None:
    split = folder(str(flat), 8)
    assert split.classes == ()
    assert split.training.labels.tolist() == [0] * 12
    assert read_all(split.training)[:, 0, 0, 0].tolist() == [20 * number for number in range(12)]


def test_order_is_by_class_and_name_and_not_by_the_file_system(tmp_path: Path) -> None:
    names = ["a/z.png", "a-b/a.png", "a/b.PNG", "a/B.png", "a/10.png", "a/9.png", "a/b/c.png"]
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(Image.new("RGB", (4, 4), (number, 0, 0))))
    split = folder(str(tmp_path), 4)
    order = ["a/10.png", "a/9.png", "a/B.png", "a/b/c.png", "a/b.PNG", "a/z.png", "a-b/a.png"]
    assert read_all(split.training)[:, 0, 0, 0].tolist() == [names.index(name) for name in order]
    assert split.classes == ("a", "a-b")
    assert split.training.labels.tolist() == [0] * 6 + [1]


def test_files_are_opened_only_when_they_are_asked_for(tree: Path) -> None:
    for name in SIZES:
        (tree / name).write_bytes(b"damaged")
    split = folder(str(tree), 8, split=0.5)
    assert len(split.training) == len(split.heldout) == 2


def test_many_files_are_listed_fast(tmp_path: Path) -> None:
    for label in range(20):
        (tmp_path / f"{label}").mkdir()
        for number in range(250):
            (tmp_path / f"{label}/{number}.jpg").touch()
    assert len(folder(str(tmp_path), 8).training) == 5000


def test_a_note_counts_the_images_and_the_ignored_files(tree: Path) -> None:
    for name in ("dog/a.pdf", "b.pdf", "cat/deep/none", "cat/page.html"):
        (tree / name).touch()
    ignored = "2 .pdf, 1 without a suffix, 1 .html, 1 .txt"
    told = f"{tree}: 4 images of 2 classes (cat 2, dog 2); ignored: {ignored}"
    assert folder(str(tree), 8).notes == (told,)
    assert folder(str(tree), 8, heldout=str(tree)).notes == (told, told)
    for number in range(20):
        (tree / f"{number}").mkdir()
        for image in range(1 + number % 3):
            (tree / f"{number}/{image}.png").touch()
    assert "43 images of 22 classes, 1 to 3 each; ignored: " in folder(str(tree), 8).notes[0]


@pytest.mark.parametrize("ending", ["bmp", "tif", "tiff", "gif", "jfif", "ppm", "tga", "webp", "jp2", "ico", "PNG"])
def test_all_formats_that_pillow_decodes_are_taken(ending: str, tmp_path: Path) -> None:
    kind = {"JFIF": "JPEG", "TIF": "TIFF", "JP2": "JPEG2000"}.get(ending.upper(), ending.upper())
    picture = Image.new("RGB", (16, 16), (200, 16, 16))
    (tmp_path / f"it.{ending}").write_bytes(encode(picture, kind))
    (tmp_path / "it.eps").write_bytes(encode(picture, "EPS"))  # Pillow would run it with Ghostscript
    images = folder(str(tmp_path), 8).training
    assert len(images) == 1
    colour = read_all(images)[0, :, 4, 4].float()
    assert (colour - torch.tensor([200.0, 16, 16])).abs().max() <= 2


def test_names_that_are_not_utf8_are_refused(tree: Path) -> None:
    for name in (b"caf\xe9", b"dog/caf\xe9.png"):
        path = os.path.join(os.fsencode(tree), name)
        os.mkdir(path) if name == b"caf\xe9" else os.close(os.open(path, os.O_CREAT))
        with pytest.raises(ValueError, match=r"^the name .*/caf\\xe9(\.png)? is not UTF-8: rename it"):
            folder(str(tree), 8)
        os.rmdir(path) if name == b"caf\xe9" else os.remove(path)
    with pytest.raises(ValueError, match=r"^the name .*/caf\\xe9 is not UTF-8"):
        folder(str(tree / os.fsdecode(b"caf\xe9")), 8)


def test_folders_that_cannot_be_listed_are_one_line(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("x" * 5000, "/".join(["x"] * 5000)):
        with pytest.raises(ValueError, match=r"^[^\n]*cannot be listed: File name too long$"):
            folder(path, 8)
    with pytest.raises(ValueError, match="null"):
        folder("a\0b", 8)
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"^[^\n]*cat/deep cannot be listed: Permission denied$"):
        folder(str(tree), 8)


def test_only_regular_files_are_opened(tree: Path) -> None:
    os.mkfifo(tree / "cat/fifo.png")
    (tree / "dog/zero.png").symlink_to("/dev/zero")
    images = folder(str(tree), 8).training
    for number in (2, 5):
        with pytest.raises(UserError, match=r"/(fifo|zero)\.png cannot be opened: it is not a regular file$"):
            images.read(torch.tensor([number]))


def test_links_are_followed_but_not_round(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/cat").symlink_to(tree / "cat")
    assert len(folder(str(tmp_path / "linked"), 8).training) == 2
    (tree / "cat/round").symlink_to(tree)
    with pytest.raises(ValueError, match="round links to a folder that contains it"):
        folder(str(tree), 8)


def test_held_out_images(tree: Path, flat: Path) -> None:
    split = folder(str(flat), 8, split=0.75)
    reds = [{int(red) for red in read_all(part)[:, 0, 0, 0]} for part in (split.training, split.heldout)]
    assert [len(red) for red in reds] == [9, 3]
    assert not reds[0] & reds[1]
    again = folder(str(flat), 8, split=0.75)
    assert torch.equal(read_all(again.heldout), read_all(split.heldout))
    assert_images(split.heldout, read_all(split.heldout))
    other = folder(str(tree), 8, heldout=str(tree))
    assert torch.equal(read_all(other.heldout), read_all(other.training))
    assert torch.equal(other.heldout.labels, other.training.labels)


def test_damaged_images_stop_with_their_names(tree: Path) -> None:
    (tree / "cat/a.png").write_bytes(b"")
    (tree / "dog/b.png").write_bytes((tree / "dog/b.png").read_bytes()[:200])
    images = folder(str(tree), 8).training
    with pytest.raises(
        UserError, match=r"^[^\n]*cat/a\.png[^\n]*dog/b\.png[^\n]*; repair them, or set data\.unreadable = skip[^\n]*$"
    ):
        read_all(images)
    assert len(images.read(torch.tensor([1, 2]))) == 2
    os.remove(tree / "dog/a.webp")
    with pytest.raises(UserError, match=r"dog/a\.webp cannot be opened: No such file"):
        images.read(torch.tensor([2]))


def test_damaged_images_are_skipped_by_name(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = folder(str(tree), 8)
    (tree / "cat/deep/b.png").write_bytes(b"damaged")
    split = folder(str(tree), 8, unreadable="skip")
    told = "3 images of 2 classes (cat 1, dog 2); ignored: 1 .txt; 1 of 4 images are unreadable and skipped"
    assert split.notes == (f"{tree}: {told}: cat/deep/b.png",)
    expected = read_all_of(whole.training, [0, 2, 3])
    assert torch.equal(read_all(split.training), expected)
    assert split.training.labels.tolist() == [0, 1, 1]
    assert json.loads((tree / "unreadable.json").read_text())["unreadable"] == ["cat/deep/b.png"]
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["sitkit.recipes.data.folder"], "decode_square", None)  # recorded: none is decoded
        split = folder(str(tree), 8, unreadable="skip")
    assert torch.equal(read_all(split.training), expected)
    (tree / "dog/b.png").write_bytes(b"damaged too")
    assert len(folder(str(tree), 8, unreadable="skip").training) == 2
    (tree / "dog/b.png").write_bytes(encode(noise_of(16, 20, 3)))  # repaired
    assert len(folder(str(tree), 8, unreadable="skip").training) == 3
    (tree / "dog/c.png").write_bytes(b"damaged too")
    split = folder(str(tree), 8, unreadable="skip")
    assert len(split.training) == 3
    assert split.notes[0].endswith("2 of 5 images are unreadable and skipped: cat/deep/b.png, dog/c.png")


def test_files_that_cannot_be_opened_are_never_skipped(tree: Path) -> None:
    (tree / "cat/lost.png").symlink_to(tree / "nowhere.png")
    with pytest.raises(UserError, match=r"cat/lost\.png cannot be opened: No such file"):
        folder(str(tree), 8, unreadable="skip")


def read_all_of(images: Images, numbers: list[int]) -> Tensor:
    return images.read(torch.tensor(numbers))


def test_folders_that_cannot_be_used(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    for name in ("a.txt", "b.TXT", "README", ".hidden"):
        (tmp_path / "text" / name).touch()
    (tmp_path / "one/cat").mkdir(parents=True)
    (tmp_path / "one/cat/a.png").write_bytes(encode(noise_of(8, 8, 3)))
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("there is no folder .*nowhere", {"path": str(tmp_path / "nowhere")}),
        ("there is no folder .*a.png", {"path": str(tree / "cat/a.png")}),
        ("holds no images that Pillow can read; it is empty", {"path": str(tmp_path / "empty")}),
        (
            "holds no images that Pillow can read; ignored: 2 .txt, 1 without a suffix",
            {"path": str(tmp_path / "text")},
        ),
        ("size is .* at least 1, got 0", {"size": 0}),
        ("split must lie between 0 and 1, got 1.5", {"split": 1.5}),
        ("split = 0.99 leaves none of 4 images", {"split": 0.99}),
        ("heldout and split both hold images out", {"heldout": str(tree), "split": 0.5}),
        ("only one has: dog", {"heldout": str(tmp_path / "one")}),
    ]
    for message, fields in wrong:
        table = {"kind": "folder", "path": str(tree), "size": 8, **fields}
        with pytest.raises(UserError, match=message) as caught:
            component(**table).build()
        assert "\n" not in str(caught.value)
    (tree / "loose.png").touch()
    with pytest.raises(ValueError, match=r"holds both images and subfolders: move loose\.png"):
        folder(str(tree), 8)
    os.remove(tree / "loose.png")
    (tree / "bird").mkdir()
    with pytest.raises(ValueError, match="bird holds no images"):
        folder(str(tree), 8)
