"""Images to write and read, and ADM's preprocessing of them."""

import io
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sitkit.recipes.data.images import Images, read_all, to_states
from sitkit.recipes.experiment.components import Component
from sitkit.recipes.experiment.slots import DATA

SIZES = {"cat/a.png": (40, 31), "cat/deep/b.png": (33, 70), "dog/a.webp": (32, 32), "dog/b.png": (16, 20)}


def noise_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def encode(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(stream, kind, **options)
    return stream.getvalue()


def write_tree(root: Path) -> Path:
    """Write a folder of two classes with a text file and a hidden folder in it, and return it."""
    for name, (height, width) in SIZES.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        options = {"lossless": True} if name.endswith("webp") else {}
        file.write_bytes(encode(noise_of(height, width, 3), file.suffix[1:].upper(), **options))
    (root / "cat/notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    return root


def reference(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return ADM's crop, with the computation of its sides written out."""
    while min(pixels.shape[:2]) >= 2 * size:
        half = (pixels.shape[1] // 2, pixels.shape[0] // 2)
        pixels = np.array(Image.fromarray(pixels).resize(half, Image.Resampling.BOX))
    height, width = pixels.shape[:2]
    wide = (round(width * size / height), size) if height <= width else (size, round(height * size / width))
    pixels = np.array(Image.fromarray(pixels).resize(wide, Image.Resampling.BICUBIC))
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return pixels[top : top + size, left : left + size]


def assert_images(images: Images, pixels: Tensor) -> None:
    """Assert that images equal the pixels (N, C, H, W) in any batch, and that their states are theirs."""
    count = len(images)
    assert count == len(images.labels) == len(pixels)
    assert torch.equal(read_all(images), pixels)
    for numbers in ([count - 1, 0, count - 1], [count // 2], []):
        at = torch.tensor(numbers, dtype=torch.int64)
        assert torch.equal(images.read(at), pixels[at])
        for flips in (torch.zeros(len(at), dtype=torch.bool), torch.arange(len(at)) % 2 == 0):
            states = images.states(at, flips, torch.zeros)
            assert states.dtype == torch.float32
            assert states.shape == (len(at), *images.shape)
            for state, number, flip in zip(states, numbers, flips, strict=True):
                assert torch.equal(state, to_states(pixels[number].flip(-1) if flip else pixels[number]))


def component(kind: str, **fields: Any) -> Component:
    found = DATA.parse({"kind": kind, **fields})
    assert found is not None
    return found


@contextmanager
def memory(limit: int) -> Iterator[None]:
    """Limit the memory of this process to a number of bytes more than it has."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
