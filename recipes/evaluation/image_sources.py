"""Images of files and of npz arrays, by index: samples, and references to compare them with."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..data.classes import class_numbers, describe_images
from ..data.file_listing import list_files
from ..data.image_decoding import decode_square, decode_whole, image_suffixes, read_size
from ..data.lazy_images import load_batch
from ..storage.arrays import NpzReader
from ..storage.files import read_regular
from ..storage.npy_header import INTEGER, ArrayError
from ..support.errors import UserError
from ..support.progress import print_once


class ImageSource(Protocol):
    """Images by index, from 0 to len - 1."""

    @property
    def labels(self) -> Tensor | None:
        """The class of each image, (N,) int64; None without classes."""
        ...

    def __len__(self) -> int: ...

    def read(self, indices: Tensor, /) -> Tensor:
        """Return the images with these indices, (B,) int64, as (B, C, H, W) uint8."""
        ...


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """The image files of a folder and its subfolders, in the order of their names.

    Args:
        root: the folder.
        names: the paths of the files in the folder.
        image: (C, H, W) of the images to return. For C = 1, the files must be grey.
        crop: whether images of another size are cropped as in ADM (`data.image_decoding`); otherwise they are refused.
        labels: the class of each image, if known.
        note: a line about the images, and about files that were skipped.
        sized_as: the file that determined the size, if the images are samples; used in messages.
    """

    root: Path
    names: Sequence[str]
    image: tuple[int, int, int]
    crop: bool
    labels: Tensor | None
    note: str
    sized_as: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def read(self, indices: Tensor, /) -> Tensor:
        """Return the images.

        Raises:
            UserError: images cannot be read, have another size, or are in colour where grey images are needed.
        """
        return load_batch(self._read, indices, self.image)

    def _read(self, number: int) -> Tensor:
        file, (channels, height, width) = self.root / self.names[number], self.image
        try:
            encoded = read_regular(file)
        except OSError as error:
            raise UserError(f"{file} cannot be opened: {error.strerror}") from error
        if self.crop:
            return with_channels(decode_square(encoded, height, str(file)), channels, file)
        size = read_size(encoded, str(file))
        if sorted(size) != sorted((width, height)):  # Exif may swap width and height
            raise self._other_size(file, *size)
        pixels = decode_whole(encoded, str(file))
        if pixels.shape[1:] != (height, width):
            raise self._other_size(file, pixels.shape[2], pixels.shape[1])
        return with_channels(pixels, channels, file)

    def _other_size(self, file: Path, width: int, height: int) -> UserError:
        wanted = f"{self.image[2]}x{self.image[1]}"
        advice = f"{self.sized_as} {wanted}: samples must have one size" if self.sized_as else ""
        return UserError(
            f"{file} is {width}x{height}, {advice or f'samples are {wanted}: --crop crops images as ADM does'}"
        )


def open_files(root: Path, image: tuple[int, int, int], classes: Sequence[str], crop: bool) -> ImageFiles:
    """Return the images of a folder. They have labels if its subfolders have the names of the classes.

    Raises:
        UserError: there is no image, or `crop` is set and the images to return are not square.
    """
    try:
        listed = list_files(root, image_suffixes())
    except ValueError as error:
        raise UserError(str(error)) from error
    names = listed.names
    if not names:
        raise UserError(f"{root} has no image that Pillow can read; {listed.describe_ignored() or 'it is empty'}")
    if crop and image[1] != image[2]:
        raise UserError(f"images must be square, got {image[1]} x {image[2]}")
    label = {name: number for number, name in enumerate(classes)}
    found = [label.get(name.split("/", 1)[0]) if "/" in name else None for name in names]
    labels = None if None in found else torch.tensor(found, dtype=torch.int64)
    known = (torch.zeros(len(names), dtype=torch.int64), ()) if labels is None else (labels, classes)
    return ImageFiles(root, names, image, crop, labels, describe_images(str(root), *known, listed.describe_ignored()))


@dataclass(frozen=True, eq=False)
class ImageArray:
    """The images of an npz as of ADM, `arr_0` (N, H, W, 3) uint8; memory-mapped if they are not compressed.

    Args:
        file: the npz.
        pixels: the array.
        image: (C, H, W) of the images to return. For C = 1, the array must be grey.
        labels: the class of each image, if known.
    """

    file: Path
    pixels: np.ndarray
    image: tuple[int, int, int]
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices: Tensor, /) -> Tensor:
        """Return the images.

        Raises:
            UserError: images are in colour where grey images are needed.
        """
        pixels = torch.from_numpy(np.ascontiguousarray(self.pixels[indices.numpy()])).permute(0, 3, 1, 2)
        return with_channels(pixels, self.image[0], self.file).contiguous()


def open_array(file: Path, image: tuple[int, int, int], classes: Sequence[str] = ()) -> ImageArray:
    """Return the images of an npz: `arr_0`, or else its only array of images, (N, H, W, 3) uint8.

    They have labels if the npz has `labels` (N,), the numbers of the classes (`class_numbers`).

    Raises:
        UserError: there is no such array, its images have another size, or there is not one label per image.
    """
    wanted = (*image[1:], 3)
    try:
        with NpzReader(file) as arrays:
            name = image_array_name(arrays)
            if name is None:
                raise ArrayError(
                    f"it has no arr_0 and not exactly one other array (N, H, W, 3) uint8; {describe_arrays(arrays)}"
                )
            header = arrays.header(name)
            if header.dtype != np.uint8 or header.shape[1:] != wanted:
                raise UserError(
                    f"{file}: {name} has images {header.shape[1:]} {header.dtype}, but samples are {wanted} uint8"
                )
            if not header.shape[0]:
                raise UserError(f"{file}: {name} has no image")
            pixels = arrays.map(name)
            found = arrays.read("labels", INTEGER, header.shape[:1]) if "labels" in arrays.names else None
    except (OSError, ArrayError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{file} cannot be read as images with labels (N,) or none: {why}") from error
    labels = None if found is None else _labels(torch.from_numpy(found.astype(np.int64)), classes, file)
    return ImageArray(file, pixels, image, labels)


def image_array_name(arrays: NpzReader) -> str | None:
    """Return the name of the array of images in an npz: `arr_0`, or else the only one; None if there is none."""
    if "arr_0" in arrays.names:
        return "arr_0"
    found = []
    for name in arrays.names:
        with suppress(ArrayError):  # an array that cannot be read is not one of images
            header = arrays.header(name)
            if header.dtype == np.uint8 and len(header.shape) == 4:
                found.append(name)
    return found[0] if len(found) == 1 else None


def describe_arrays(arrays: NpzReader) -> str:
    """Return a list of the arrays of an npz, for messages."""
    return f"it has: {', '.join(arrays.names)[:200] or 'nothing'}"


def _labels(found: Tensor, classes: Sequence[str], file: Path) -> Tensor | None:
    """Return class numbers (N,) as labels of samples; None if some are of other classes."""
    if not classes:
        return found
    numbers = class_numbers(classes)
    if unknown := [number for number in torch.unique(found).tolist() if number not in numbers]:
        print_once(f"{file}: its labels are ignored, because samples have no class {', '.join(map(str, unknown[:5]))}")
        return None
    return torch.tensor([numbers[number] for number in found.tolist()], dtype=torch.int64)


def with_channels(pixels: Tensor, channels: int, file: Path) -> Tensor:
    """Return pixels (..., C, H, W), grey or RGB, with 3 channels, or with 1 if they are grey."""
    if channels == pixels.shape[-3]:
        return pixels
    if pixels.shape[-3] == 1:
        return pixels.expand(*pixels.shape[:-3], channels, *pixels.shape[-2:])
    grey = pixels[..., :1, :, :]
    if channels != 1 or not (pixels == grey).all():
        raise UserError(f"{file} has images in colour, but samples have {channels} channels")
    return grey
