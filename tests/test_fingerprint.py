"""Fingerprints of data: they depend on the images, and not on their folder."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from image_files import encode, write_tree
from sitkit.recipes.data import digits, edm2, folder, huggingface, lightningdit
from sitkit.recipes.data.fingerprint import cache_key, fingerprint
from sitkit.recipes.data.images import Images, InMemory, Split
from sitkit.recipes.data.splits import split_images


def write_folder(root: Path) -> None:
    write_tree(root)


def write_edm2(root: Path) -> None:
    (root / "0").mkdir(parents=True)
    for number in range(4):
        np.save(root / f"0/{number}.npy", np.full((4, 2, 2), number, np.float32))
    labels = ", ".join(f'["0/{number}.npy", {number % 2}]' for number in range(4))
    (root / "dataset.json").write_text(f'{{"labels": [{labels}]}}')


def write_lightningdit(root: Path) -> None:
    root.mkdir()
    torch.save({"mean": torch.zeros(1, 2, 1, 1), "std": torch.ones(1, 2, 1, 1)}, root / "latents_stats.pt")
    z = torch.arange(4 * 2 * 2 * 2, dtype=torch.float32).reshape(4, 2, 2, 2)
    save_file({"latents": z, "latents_flip": -z, "labels": torch.arange(4) % 2}, root / "a.safetensors")


def write_rows(root: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    images = [{"bytes": encode(np.full((4, 4, 3), 50 * n, np.uint8)), "path": None} for n in range(4)]
    rows = datasets.Dataset.from_dict({"image": images, "label": [0, 0, 1, 1]}, features=features)
    rows.save_to_disk(root)


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Split], str]] = {
    "folder": (write_folder, lambda root: folder(str(root), 8), "cat/a.png"),
    "edm2": (write_edm2, lambda root: edm2(str(root), "none"), "0/1.npy"),
    "lightningdit": (write_lightningdit, lambda root: lightningdit(str(root), "none"), "a.safetensors"),
    "huggingface": (write_rows, lambda root: huggingface(str(root), 8), "data-00000-of-00001.arrow"),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    if request.param == "huggingface":
        datasets = pytest.importorskip("datasets")
        datasets.disable_progress_bars()
    return KINDS[request.param]


def change(file: Path) -> None:
    """Replace a byte of a file without changing its size and times."""
    content, before = bytearray(file.read_bytes()), file.stat()
    place = content.find(b"IDAT") + 20 if b"IDAT" in content else len(content) - 6
    content[place] ^= 1
    file.write_bytes(bytes(content))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_fingerprint_goes_with_images_and_a_state_stays(kind: Any, tmp_path: Path) -> None:
    write, build, name = kind
    write(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (build(tmp_path / place).training for place in ("one", "two"))
    assert fingerprint(one) == fingerprint(two)
    assert cache_key(one) == cache_key(build(tmp_path / "one").training)
    assert cache_key(one) != cache_key(two)
    before = cache_key(two)
    change(tmp_path / "two" / name)
    changed = build(tmp_path / "two").training
    assert fingerprint(changed) != fingerprint(one)
    assert cache_key(changed) != before


def test_order_and_subset_change_the_fingerprint(kind: Any, tmp_path: Path) -> None:
    write, build, _ = kind
    write(tmp_path / "one")
    images: Images = build(tmp_path / "one").training
    numbers = [torch.tensor(some, dtype=torch.int64) for some in ([0, 1], [1, 0], [0], [0, 2], [])]
    assert len({fingerprint(images, some) for some in numbers}) == len(numbers)
    assert len({cache_key(images, some) for some in numbers}) == len(numbers)
    part, rest = split_images(images, None, 0.5)
    assert fingerprint(part) == fingerprint(images, part.indices)  # type: ignore[attr-defined]
    assert fingerprint(part) != fingerprint(rest)


def test_of_many_files_the_content_of_some_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for number in range(10):
        (tmp_path / f"x/{number}.png").write_bytes(bytes([number]))
    before = fingerprint(folder(str(tmp_path), 8).training, sample=2)
    (tmp_path / "x/1.png").write_bytes(b"!")
    assert fingerprint(folder(str(tmp_path), 8).training, sample=2) == before  # of 0 and 5, content is read
    (tmp_path / "x/5.png").write_bytes(b"!")
    assert fingerprint(folder(str(tmp_path), 8).training, sample=2) != before
    (tmp_path / "x/1.png").write_bytes(b"!!")
    os.remove(tmp_path / "x/2.png")
    (tmp_path / "x/2.png").symlink_to("nowhere")
    os.remove(tmp_path / "x/0.png")
    os.mkfifo(tmp_path / "x/0.png")  # is not waited for
    assert len({before, fingerprint(folder(str(tmp_path), 8).training, sample=9)}) == 2


class Own:
    """Custom images without a fingerprint."""

    def __init__(self, pixels: Tensor):
        self.pixels, self.labels, self.shape = pixels, torch.zeros(len(pixels), dtype=torch.int64), (1, 2, 2)

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, numbers: Tensor, /) -> Tensor:
        return self.pixels[numbers]


def test_images_without_a_fingerprint_are_read_for_their_cache_key() -> None:
    pixels = torch.arange(12, dtype=torch.uint8).reshape(3, 1, 2, 2)
    own: Any = Own(pixels)
    assert fingerprint(own) is None
    assert cache_key(own) == cache_key(Own(pixels.clone()))  # type: ignore[arg-type]
    assert cache_key(own) != cache_key(Own(pixels.flip(0)))  # type: ignore[arg-type]
    unread = cache_key(own)
    own.state = lambda numbers: f"version 1 of {len(numbers)}"  # the method's name in earlier versions
    assert (before := cache_key(own)) != unread
    own.cache_key = own.state
    assert cache_key(own) == before
    labelled = InMemory(pixels, torch.zeros(3, dtype=torch.int64))
    assert fingerprint(labelled) != fingerprint(InMemory(pixels.flip(0), labelled.labels))
    assert cache_key(labelled) != cache_key(InMemory(pixels, torch.ones(3, dtype=torch.int64)))
    assert fingerprint(digits().training) == fingerprint(digits().training)
