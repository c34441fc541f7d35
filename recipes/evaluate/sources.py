"""Images to compare samples with, in files."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..blocks import BROKEN
from ..data.crop import FORMATS, Unreadable, square
from ..data.folder import SUFFIXES
from ..data.listing import listing
from ..data.ondemand import load_all
from ..problem import Problem


class Pictures(Protocol):
    """Images by number, from 0 to len - 1."""

    @property
    def labels(self) -> Tensor | None:
        """The class of each, (N,) int64, if they have classes."""
        ...

    def __len__(self) -> int: ...

    def read(self, numbers: Tensor, /) -> Tensor:
        """Return the images (B,) int64, as (B, C, H, W) uint8."""
        ...


@dataclass(frozen=True, eq=False)
class Files:
    """The image files of a folder and of the folders in it, in the order of their names.

    Args:
        root: the folder.
        names: of the files, below it.
        image: (C, H, W) of what is wanted; grey images, C = 1, must be grey.
        crop: whether images of another size are cut like ADM's (`data.crop`), or refused.
        labels: the class of each, if known.
    """

    root: Path
    names: Sequence[str]
    image: tuple[int, int, int]
    crop: bool
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.names)

    def read(self, numbers: Tensor, /) -> Tensor:
        """Return the images.

        Raises:
            Problem: some cannot be read, or are of another size, or in colour where samples are grey.
        """
        return load_all(self._read, numbers, self.image)

    def _read(self, number: int) -> Tensor:
        file, (channels, height, width) = self.root / self.names[number], self.image
        try:
            encoded = file.read_bytes()
        except OSError as error:
            raise Problem(f"{file} cannot be opened: {error.strerror}") from error
        if not self.crop:
            _check_size(encoded, (width, height), file)
        return _in_channels(square(encoded, height, str(file)), channels, file)


def open_files(root: Path, image: tuple[int, int, int], classes: Sequence[str], crop: bool) -> Files:
    """Return the images of a folder; they have labels if its folders have the names of the classes.

    Raises:
        Problem: there is no image, or images are to be cut to what is no square.
    """
    try:
        names = listing(root, SUFFIXES)
    except ValueError as error:
        raise Problem(str(error)) from error
    if not names:
        raise Problem(f"{root} holds no image: no file in it or below ends in {', '.join(SUFFIXES)}")
    if image[1] != image[2]:
        raise Problem(f"images must be square, got {image[1]} x {image[2]}")
    label = {name: number for number, name in enumerate(classes)}
    found = [label.get(name.split("/", 1)[0]) if "/" in name else None for name in names]
    labels = None if None in found else torch.tensor(found, dtype=torch.int64)
    return Files(root, names, image, crop, labels)


@dataclass(frozen=True, eq=False)
class Array:
    """The images of an npz as ADM has them, `arr_0` (N, H, W, 3) uint8, mapped into memory where it is not compressed.

    Args:
        file: the npz.
        pixels: the array.
        image: (C, H, W) of what is wanted; grey images, C = 1, must be grey.
        labels: the class of each, if known.
    """

    file: Path
    pixels: np.ndarray
    image: tuple[int, int, int]
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, numbers: Tensor, /) -> Tensor:
        """Return the images.

        Raises:
            Problem: some are in colour where samples are grey.
        """
        pixels = torch.from_numpy(np.ascontiguousarray(self.pixels[numbers.numpy()])).permute(0, 3, 1, 2)
        return _in_channels(pixels, self.image[0], self.file).contiguous()


def open_array(file: Path, image: tuple[int, int, int]) -> Array:
    """Return the images of an npz.

    Raises:
        Problem: it has no such array, or one of images of another resolution.
    """
    wanted = (*image[1:], 3)
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            held = arrays["labels"] if "labels" in arrays.files else None
        pixels = _mapped(file, "arr_0.npy")
        labels = None if held is None else torch.from_numpy(held.astype(np.int64))
    except BROKEN as error:
        raise Problem(f"{file} holds no images arr_0 ({error}): copy it again") from error
    if pixels.dtype != np.uint8 or pixels.shape[1:] != wanted:
        raise Problem(f"{file}: arr_0 holds images {pixels.shape[1:]} {pixels.dtype}, and samples are {wanted} uint8")
    return Array(file, pixels, image, labels)


def _mapped(file: Path, name: str) -> np.ndarray:
    """Return an array of an npz, without reading it if it is stored as it is."""
    with zipfile.ZipFile(file) as archive:
        entry = archive.getinfo(name)
        if entry.compress_type != zipfile.ZIP_STORED:
            with np.load(file, allow_pickle=False) as arrays:
                return np.asarray(arrays[name.removesuffix(".npy")])
        with archive.open(entry) as stream:
            np.lib.format.read_magic(stream)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            head = stream.tell()
    if dtype.hasobject or fortran:
        raise ValueError(f"{name} is no plain array")
    with file.open("rb") as stream:
        stream.seek(entry.header_offset + 26)
        lengths = stream.read(4)  # of the name and of the extra field that stand before the content
        start = entry.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    return np.memmap(file, dtype, "r", start + head, shape)


def _check_size(encoded: bytes, size: tuple[int, int], file: Path) -> None:
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            found = image.size
    except Exception as error:
        raise Unreadable(f"{file} cannot be read as an image: {error}") from error
    if found != size:
        (width, height), (own_width, own_height) = size, found
        raise Problem(
            f"{file} is {own_width}x{own_height}, samples are {width}x{height}: --crop cuts images as ADM does"
        )


def _in_channels(pixels: Tensor, channels: int, file: Path) -> Tensor:
    """Return RGB pixels (..., 3, H, W) in 3 channels, or in 1 if they are grey."""
    if channels == pixels.shape[-3]:
        return pixels
    grey = pixels[..., :1, :, :]
    if channels != 1 or not (pixels == grey).all():
        raise Problem(f"{file} has images in colour, and samples have {channels} channels")
    return grey
