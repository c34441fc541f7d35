"""Images to compare samples with, in files."""

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
class ImageFiles:
    """The image files of a folder and of the folders in it, in the order of their names.

    Args:
        root: the folder.
        names: of the files, below it.
        image: (C, H, W) of what is wanted; grey images, C = 1, must be grey.
        crop: whether images of another size are cut like ADM's (`data.crop`), or refused.
        labels: the class of each, if known.
        told: a line on the images, and on what was passed over.
        alike: the file whose size all should have, of samples; else it is that of samples.
    """

    root: Path
    names: Sequence[str]
    image: tuple[int, int, int]
    crop: bool
    labels: Tensor | None
    told: str
    alike: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def read(self, numbers: Tensor, /) -> Tensor:
        """Return the images.

        Raises:
            UserError: some cannot be read, or are of another size, or in colour where samples are grey.
        """
        return load_batch(self._read, numbers, self.image)

    def _read(self, number: int) -> Tensor:
        file, (channels, height, width) = self.root / self.names[number], self.image
        try:
            encoded = read_regular(file)
        except OSError as error:
            raise UserError(f"{file} cannot be opened: {error.strerror}") from error
        if self.crop:
            return in_channels(decode_square(encoded, height, str(file)), channels, file)
        own = read_size(encoded, str(file))
        if sorted(own) != sorted((width, height)):  # which of them is the width, Exif may say
            raise self._other_size(file, *own)
        pixels = decode_whole(encoded, str(file))
        if pixels.shape[1:] != (height, width):
            raise self._other_size(file, pixels.shape[2], pixels.shape[1])
        return in_channels(pixels, channels, file)

    def _other_size(self, file: Path, width: int, height: int) -> UserError:
        wanted = f"{self.image[2]}x{self.image[1]}"
        advice = f"{self.alike} {wanted}: samples are all of one size" if self.alike else ""
        return UserError(
            f"{file} is {width}x{height}, {advice or f'samples are {wanted}: --crop cuts images as ADM does'}"
        )


def open_files(root: Path, image: tuple[int, int, int], classes: Sequence[str], crop: bool) -> ImageFiles:
    """Return the images of a folder; they have labels if its folders have the names of the classes.

    Raises:
        UserError: there is no image, or images are to be cut to what is no square.
    """
    try:
        listed = list_files(root, image_suffixes())
    except ValueError as error:
        raise UserError(str(error)) from error
    names = listed.names
    if not names:
        raise UserError(f"{root} holds no image that Pillow reads; {listed.describe_ignored() or 'it is empty'}")
    if crop and image[1] != image[2]:
        raise UserError(f"images must be square, got {image[1]} x {image[2]}")
    label = {name: number for number, name in enumerate(classes)}
    found = [label.get(name.split("/", 1)[0]) if "/" in name else None for name in names]
    labels = None if None in found else torch.tensor(found, dtype=torch.int64)
    known = (torch.zeros(len(names), dtype=torch.int64), ()) if labels is None else (labels, classes)
    return ImageFiles(root, names, image, crop, labels, describe_images(str(root), *known, listed.describe_ignored()))


@dataclass(frozen=True, eq=False)
class ImageArray:
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
            UserError: some are in colour where samples are grey.
        """
        pixels = torch.from_numpy(np.ascontiguousarray(self.pixels[numbers.numpy()])).permute(0, 3, 1, 2)
        return in_channels(pixels, self.image[0], self.file).contiguous()


def open_array(file: Path, image: tuple[int, int, int], classes: Sequence[str] = ()) -> ImageArray:
    """Return the images of an npz: `arr_0`, or else its only array of images, (N, H, W, 3) uint8.

    They have labels if it has `labels` (N,), numbers of the classes (`class_numbers`).

    Raises:
        UserError: it has no such array, or one of images of another resolution, or its labels are not one an image.
    """
    wanted = (*image[1:], 3)
    try:
        with NpzReader(file) as arrays:
            name = images_in(arrays)
            if name is None:
                raise ArrayError(f"it has no arr_0, and not one array (N, H, W, 3) uint8 in its place; {held(arrays)}")
            header = arrays.header(name)
            if header.dtype != np.uint8 or header.shape[1:] != wanted:
                raise UserError(
                    f"{file}: {name} holds images {header.shape[1:]} {header.dtype}, and samples are {wanted} uint8"
                )
            if not header.shape[0]:
                raise UserError(f"{file}: {name} holds no image")
            pixels = arrays.map(name)
            found = arrays.read("labels", INTEGER, header.shape[:1]) if "labels" in arrays.names else None
    except (OSError, ArrayError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{file} cannot be read as images with labels (N,) or none: {why}") from error
    labels = None if found is None else _labels(torch.from_numpy(found.astype(np.int64)), classes, file)
    return ImageArray(file, pixels, image, labels)


def images_in(arrays: NpzReader) -> str | None:
    """Return the name of the array of images in an npz, if there is one and no doubt which."""
    if "arr_0" in arrays.names:
        return "arr_0"
    found = []
    for name in arrays.names:
        with suppress(ArrayError):  # an array that cannot be read is none of images
            header = arrays.header(name)
            if header.dtype == np.uint8 and len(header.shape) == 4:
                found.append(name)
    return found[0] if len(found) == 1 else None


def held(arrays: NpzReader) -> str:
    """Return what an npz holds, in words."""
    return f"it has: {', '.join(arrays.names)[:200] or 'nothing'}"


def _labels(found: Tensor, classes: Sequence[str], file: Path) -> Tensor | None:
    """Return the numbers (N,) of classes as labels of samples; none if some are of other classes."""
    if not classes:
        return found
    numbers = class_numbers(classes)
    if strange := [number for number in torch.unique(found).tolist() if number not in numbers]:
        print_once(f"{file}: labels are left aside, for samples have no class {', '.join(map(str, strange[:5]))}")
        return None
    return torch.tensor([numbers[number] for number in found.tolist()], dtype=torch.int64)


def in_channels(pixels: Tensor, channels: int, file: Path) -> Tensor:
    """Return pixels (..., C, H, W), grey or RGB, in 3 channels, or in 1 if they are grey."""
    if channels == pixels.shape[-3]:
        return pixels
    if pixels.shape[-3] == 1:
        return pixels.expand(*pixels.shape[:-3], channels, *pixels.shape[-2:])
    grey = pixels[..., :1, :, :]
    if channels != 1 or not (pixels == grey).all():
        raise UserError(f"{file} has images in colour, and samples have {channels} channels")
    return grey
