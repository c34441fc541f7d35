"""The reference of an evaluation: held-out images, a folder of images or samples, ADM's file, or statistics."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISDIR
from typing import Any

import torch
from torch import Tensor

from ..data.file_listing import check_utf8, list_files
from ..data.fingerprint import FileFingerprints, cache_key
from ..data.image_decoding import image_suffixes
from ..data.images import Images
from ..sampling.sample_folder import CONTENT, SampleFolder
from ..storage.arrays import NpzReader
from ..storage.files import sha256
from ..storage.npy_header import ArrayError
from ..support.errors import UserError
from ..support.progress import print_once
from .feature_extraction import FeatureExtraction, extract_features, feature_blocks, read_blocks
from .feature_statistics import ABOUT, FeatureStatistics, compute_statistics, load_statistics, save_statistics
from .image_sources import ImageSource, image_array_name, open_array, open_files, with_channels

MAX_FEATURES = 10_000
"""The largest number of reference images whose features are stored, as in ADM's references."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What samples are compared with.

    Args:
        statistics: the statistics of its images.
        about: a description for a manifest.
        images: its images, if they are available.
    """

    statistics: FeatureStatistics
    about: dict[str, Any]
    images: ImageSource | None


def reference_of_images(
    images: ImageSource, source: str, identity: str, extraction: FeatureExtraction
) -> Reference | None:
    """Return images as a reference, with cached statistics if there are any; None except in process 0.

    Args:
        images: the images.
        source: their name in reports and messages.
        identity: a digest of the content or state of the images (`state_of`), the key of the cache.
        extraction: the extractor of features.

    Raises:
        UserError: images cannot be read, or the cache cannot be written.
    """
    if len(images) < 2:
        raise UserError(f"{source} has {len(images)} images: statistics need two or more")
    file = extraction.cache / f"{extraction.key}-{identity}.npz"
    parts = file.with_suffix("")
    if not file.exists():
        blocks = feature_blocks(parts, len(images))
        extract_features(
            images,
            extraction.extractor,
            blocks,
            batch=extraction.batch,
            device=extraction.device,
            partition=extraction.partition,
            what=f"features of {source}",
            check=extraction.check_features,
        )
        if extraction.partition.is_main:
            extraction.partition.wait(lambda: len(blocks.missing()), f"blocks of {parts}")
            found = compute_statistics(read_blocks(blocks), len(images), images.labels, MAX_FEATURES)
            save_statistics(found, {"source": source, "features": extraction.describe()}, file)
    if not extraction.partition.is_main:
        return None
    shutil.rmtree(parts, ignore_errors=True)
    statistics, about = load_statistics(file)
    return Reference(statistics, about or {}, images)


def reference_of_split(images: Images, name: str, extraction: FeatureExtraction) -> Reference | None:
    """Return images of a recipe's data as a reference.

    Raises:
        UserError: there are too few.
    """
    if len(images) < 2:
        raise UserError(f"the data have {len(images)} held-out images: set what to compare with by --reference")
    probe = images.read(torch.tensor([0, len(images) - 1]))  # depends on how files are cropped and latents decoded
    identity = _digest([name, cache_key(images), probe.flatten().tolist()])
    return reference_of_images(images, name, identity, extraction)


def open_reference(
    path: Path, image: tuple[int, int, int], classes: tuple[str, ...], extraction: FeatureExtraction, crop: bool
) -> Reference | None:
    """Return the images or statistics at a path as a reference, for samples (C, H, W).

    Raises:
        UserError: there is nothing, or nothing that fits the samples and the features.
    """
    if check_reference_path(path):
        if os.path.isfile(path / CONTENT):
            return _of_samples(SampleFolder.open(path), image, classes, extraction)
        files = open_files(path, image, classes, crop)
        identity = _identity(files, image, crop, state_of_files(path, files.names))
        found = reference_of_images(files, str(path), identity, extraction)
        print_once(files.note)
        return found
    try:
        with NpzReader(path) as arrays:
            names, array = arrays.names, image_array_name(arrays)
    except (OSError, ArrayError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} is neither a folder of images nor an npz: {why}") from error
    if ABOUT in names:
        return _of_statistics(path, image, extraction) if extraction.partition.is_main else None
    images = open_array(path, image, classes) if array else None
    whole = "mu" in names and extraction.extractor.frechet == "FID"
    if images is None and not whole:
        raise UserError(
            f"{path} has no images arr_0, and no mu and sigma of {extraction.extractor.name} (those of ADM are of "
            f"Inception); it has: {', '.join(names)[:200] or 'nothing'}"
        )
    some = None
    if images:
        identity = _identity(images, image, False, state_of_files(path.parent, [path.name]))
        some = reference_of_images(images, str(path), identity, extraction)
    if not extraction.partition.is_main:
        return None
    about = {"source": str(path), "sha256": sha256(path)}
    if some is not None and not whole:
        return replace(some, about=some.about | about)
    statistics, _ = load_statistics(path)
    if some is not None:  # statistics are of all images, arr_0 has some of them
        part = some.statistics
        statistics = replace(statistics, features=part.features, numbers=part.numbers)
    return Reference(statistics, about, images)


@dataclass(frozen=True, eq=False)
class _GeneratedImages:
    """Samples of a folder as reference images, with the channels of the samples that are compared with them."""

    samples: SampleFolder
    channels: int
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, indices: Tensor, /) -> Tensor:
        """Return the samples with these indices, (B,), as (B, C, H, W) uint8."""
        return with_channels(self.samples.read(indices), self.channels, self.samples.folder)


def _of_samples(
    samples: SampleFolder, image: tuple[int, int, int], classes: tuple[str, ...], extraction: FeatureExtraction
) -> Reference | None:
    """Return samples of `sitkit sample` as a reference. They have labels if their classes are among `classes`."""
    samples.check()
    own = samples.content
    if own.image[1:] != image[1:]:
        raise UserError(
            f"{samples.folder} has images of {own.image[2]}x{own.image[1]}, but samples are {image[2]}x{image[1]}"
        )
    known = {name: label for label, name in enumerate(classes)}
    labels = None
    if samples.labels is not None and all(name in known for name in own.classes):
        labels = torch.tensor([known[name] for name in own.classes])[samples.labels]
    images = _GeneratedImages(samples, image[0], labels)
    of = str(samples.crc(range(len(samples))))
    return reference_of_images(images, str(samples.folder), _identity(images, image, False, of), extraction)


def _of_statistics(path: Path, image: tuple[int, int, int], extraction: FeatureExtraction) -> Reference:
    statistics, about = load_statistics(path)
    assert about is not None
    own, wanted = about.get("features", {}), extraction.describe()
    if own.get("sha256") != wanted["sha256"] or own.get("name") != wanted["name"]:
        raise UserError(
            f"{path} has statistics of {own.get('name')} {str(own.get('sha256'))[:12]}, and evaluation.features is "
            f"{wanted['name']} {wanted['sha256'][:12]}: set the same one"
        )
    if about.get("image", list(image)) != list(image):
        raise UserError(f"{path} has statistics of images {about['image']}, but samples are {list(image)}")
    return Reference(statistics, about | {"file": str(path), "file_sha256": sha256(path)}, None)


def state_of(reference: Path) -> str:
    """Return a digest of the state of the file or folder at a path. It changes whenever that is written.

    Raises:
        UserError: there is nothing.
    """
    if not check_reference_path(reference):
        return state_of_files(reference.parent, [reference.name])
    if os.path.isfile(reference / CONTENT):
        samples = SampleFolder.open(reference)
        return str(samples.crc(range(len(samples))))
    try:
        return state_of_files(reference, list_files(reference, image_suffixes()).names)
    except ValueError as error:
        raise UserError(str(error)) from error


def check_reference_path(path: Path) -> bool:
    """Return whether there is a folder at the path of a reference.

    Raises:
        UserError: there is nothing, a run, or what cannot be opened.
    """
    if os.path.isfile(path / "recipe.json") and not os.path.isfile(path / CONTENT):
        raise UserError(f"{path} is a run: `sitkit sample` generates samples that can be a reference")
    try:
        check_utf8(str(path))
        return S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"there is no reference {path}: give a folder of images or samples, or an npz with mu and sigma or arr_0"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise UserError(str(error)) from error


def state_of_files(folder: Path, names: Sequence[str]) -> str:
    """Return a digest of the state of files in a folder."""
    return FileFingerprints([folder / name for name in names], [str(folder / name) for name in names]).cache_key(
        torch.arange(len(names))
    )


def _identity(images: ImageSource, image: tuple[int, int, int], crop: bool, of: str) -> str:
    """Return a digest of images: of the state of their files, how they are read, and their labels."""
    return _digest([image, crop, of, None if images.labels is None else images.labels.tolist()])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]
