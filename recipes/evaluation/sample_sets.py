"""Samples to evaluate: a folder of `sitkit sample`, an npz of images, or a folder of image files."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.classes import Classes
from ..data.file_listing import list_files
from ..data.fingerprint import FileFingerprints as FileStates
from ..data.image_decoding import decode_whole, image_suffixes
from ..sampling.sample_folder import SampleFolder
from ..sampling.write_folder import wait_for_shards
from ..storage.arrays import NpzReader
from ..storage.files import read_regular
from ..storage.npy_header import ArrayError
from ..storage.work_partition import WorkPartition
from ..support.errors import UserError
from ..support.progress import print_once
from .image_sources import (
    ImageArray,
    ImageFiles,
    ImageSource,
    describe_arrays,
    image_array_name,
    open_array,
    open_files,
)

FEATURES = "features"
"""The folder of features: in that of the samples, or in that of the report for images of other programs."""


@dataclass(frozen=True, eq=False)
class SampleSet:
    """A set of samples to evaluate. It is an `ImageSource`.

    Args:
        path: the path of the samples.
        images: the samples as images.
        image: (C, H, W).
        classes: the names of their classes, by label; empty if they have no labels.
        features: the folder of their features.
        manifest: everything that they depend on, as far as it is known.
        folder: the folder of samples, if sitkit generated them.
    """

    path: Path
    images: ImageSource
    image: tuple[int, int, int]
    classes: tuple[str, ...]
    features: Path
    manifest: Mapping[str, Any]
    folder: SampleFolder | None = None

    @classmethod
    def of(cls, samples: SampleFolder) -> "SampleSet":
        """Return the samples of a folder of `sitkit sample`, which may be incomplete."""
        content = samples.content
        features = samples.folder / FEATURES
        return cls(samples.folder, samples, content.image, content.classes, features, content.manifest, samples)

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def labels(self) -> Tensor | None:
        """The label of each, (N,) int64; None if there are no classes."""
        return self.images.labels

    def read(self, indices: Tensor, /) -> Tensor:
        """Return the samples with these indices, (B,) int64, as (B, C, H, W) uint8."""
        return self.images.read(indices)

    def crc(self, indices: range) -> int:
        """Return a checksum of some samples; 0 if the name of the folder of features depends on their content."""
        return 0 if self.folder is None else self.folder.crc(indices)

    def wait_for_shards(self, partition: WorkPartition) -> None:
        """Wait until the other processes have generated their shards."""
        if self.folder is not None:
            wait_for_shards(self.folder, partition)

    def costs(self) -> tuple[int, int] | None:
        """Return the NFE of a batch and the network rows per sample, if they are known."""
        if self.folder is None:
            return None
        first = self.folder.get(0)
        return first.calls, first.rows


def open_samples(path: Path, out: Path) -> SampleSet:
    """Return exported samples, or samples of other programs.

    They are the images `arr_0` of an npz, with its `labels` if it has them, or the image files of a folder, which must
    have one size. Subfolders are classes if all files are in subfolders.

    Args:
        path: the npz or the folder.
        out: the folder of the report.

    Raises:
        UserError: there are no such images, or they cannot be read.
    """
    images, classes = _image_files(path) if os.path.isdir(path) else _image_array(path)
    names = [path.joinpath(name) for name in images.names] if isinstance(images, ImageFiles) else [path]
    state = FileStates(names, [str(name) for name in names]).cache_key(torch.arange(len(names)))
    labels = None if images.labels is None else images.labels.tolist()
    digest = hashlib.sha256(json.dumps([state, labels]).encode()).hexdigest()[:12]
    return SampleSet(path, images, images.image, classes, out / FEATURES / digest, {"samples_from": str(path)})


def _image_array(path: Path) -> tuple[ImageArray, tuple[str, ...]]:
    try:
        with NpzReader(path) as arrays:
            name = image_array_name(arrays)
            if name is None:
                raise ArrayError(f"{describe_arrays(arrays)}; statistics can only be a --reference")
            shape, dtype = (header := arrays.header(name)).shape, header.dtype
    except (OSError, ArrayError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} is not an npz of samples, arr_0 (N, H, W, 3) uint8: {why}") from error
    if len(shape) != 4 or shape[3] != 3 or dtype != "uint8" or 0 in shape:
        raise UserError(f"{path}: {name} is {dtype} {shape}, but samples must be (N, H, W, 3) uint8")
    found = open_array(path, (3, *shape[1:3]))
    if found.labels is None:
        return found, ()
    if (found.labels < 0).any():
        raise UserError(f"{path}: labels must be 0 or greater, got {int(found.labels.min())}")
    classes = Classes.from_labels(found.labels)
    return replace(found, labels=classes.compact(found.labels, str(path))), classes.names


def _image_files(path: Path) -> tuple[ImageFiles, tuple[str, ...]]:
    try:
        names = list_files(path, image_suffixes()).names
    except ValueError as error:
        raise UserError(str(error)) from error
    if not names:
        raise UserError(f"{path} has neither samples nor a run, and no image that Pillow can read")
    loose = any("/" not in name for name in names)
    classes = () if loose else tuple(sorted({name.split("/", 1)[0] for name in names}))
    try:
        _, height, width = decode_whole(read_regular(path / names[0]), str(path / names[0])).shape
    except OSError as error:
        raise UserError(f"{path / names[0]} cannot be opened: {error.strerror}") from error
    found = open_files(path, (3, height, width), classes, crop=False)
    print_once(found.note)
    return replace(found, sized_as=names[0]), classes
