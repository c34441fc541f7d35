"""What samples are compared with: held-out images, a folder of images, ADM's reference, or statistics."""

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
from .feature_extraction import FeatureExtraction, blocks_of, extract, stored
from .feature_statistics import ABOUT, FeatureStatistics, gather, load, save
from .image_sources import ImageSource, images_in, in_channels, open_array, open_files

KEPT = 10_000
"""Images of a reference of which features are kept: as many as ADM's references have."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What samples are compared with.

    Args:
        statistics: of its images.
        about: what it is, for a manifest.
        pictures: its images, if they are at hand.
    """

    statistics: FeatureStatistics
    about: dict[str, Any]
    pictures: ImageSource | None


def of_images(
    images: ImageSource, source: str, identity: str, how: FeatureExtraction, keep: int = KEPT
) -> Reference | None:
    """Return images as a reference, from statistics in the cache if they are there; None for processes that only help.

    Args:
        images: the images.
        source: what to call them.
        identity: another one whenever the images may be others (`state`).
        how: the features.
        keep: of how many images features are kept.

    Raises:
        UserError: images cannot be read, or the cache cannot be written.
    """
    if len(images) < 2:
        raise UserError(f"{source} has {len(images)} images, and statistics take two or more")
    file = how.cache / f"{how.key}-{identity}.npz"
    parts = file.with_suffix("")
    if not file.exists():
        blocks = blocks_of(parts, len(images))
        extract(
            images,
            how.extractor,
            blocks,
            batch=how.batch,
            device=how.device,
            partition=how.partition,
            what=f"looking at {source}",
            check=how.check_features,
        )
        if how.partition.is_main:
            how.partition.wait(lambda: len(blocks.missing()), f"blocks of {parts}")
            found = gather(stored(blocks), len(images), images.labels, keep)
            save(found, {"source": source, "features": how.describe()}, file)
    if not how.partition.is_main:
        return None
    shutil.rmtree(parts, ignore_errors=True)
    statistics, about = load(file)
    return Reference(statistics, about or {}, images)


def of_heldout(images: Images, name: str, how: FeatureExtraction, keep: int = KEPT) -> Reference | None:
    """Return images of a recipe's data as a reference.

    Raises:
        UserError: there are too few.
    """
    if len(images) < 2:
        raise UserError(f"the data hold {len(images)} images out: name something to compare with by --reference")
    probe = images.read(torch.tensor([0, len(images) - 1]))  # which tells how files are cut, and latents decoded
    return of_images(images, name, _digest([name, cache_key(images), probe.flatten().tolist()]), how, keep)


def of_path(
    path: Path, image: tuple[int, int, int], classes: tuple[str, ...], how: FeatureExtraction, crop: bool
) -> Reference | None:
    """Return what stands at a path as a reference, for samples of a shape (C, H, W).

    Raises:
        UserError: there is nothing, or nothing that fits samples and features.
    """
    if _is_folder(path):
        if os.path.isfile(path / CONTENT):
            return _of_samples(SampleFolder.open(path), image, classes, how)
        if os.path.isfile(path / "recipe.json"):
            raise UserError(f"{path} is a run: draw samples of it, and name these as the reference")
        files = open_files(path, image, classes, crop)
        found = of_images(files, str(path), _identity(files, image, crop, state_of_files(path, files.names)), how)
        print_once(files.told)
        return found
    try:
        with NpzReader(path) as arrays:
            names, images = arrays.names, images_in(arrays)
    except (OSError, ArrayError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} is neither a folder of images nor an npz: {why}") from error
    if ABOUT in names:
        return _of_statistics(path, image, how) if how.partition.is_main else None
    pictures = open_array(path, image, classes) if images else None
    whole = "mu" in names and how.extractor.frechet == "FID"
    if pictures is None and not whole:
        raise UserError(
            f"{path} has no images arr_0, and no mu and sigma that are of {how.extractor.name} (those of ADM are of "
            f"Inception); it has: {', '.join(names)[:200] or 'nothing'}"
        )
    some = None
    if pictures:
        identity = _identity(pictures, image, False, state_of_files(path.parent, [path.name]))
        some = of_images(pictures, str(path), identity, how)
    if not how.partition.is_main:
        return None
    about = {"source": str(path), "sha256": sha256(path)}
    if not whole:
        assert some is not None
        return replace(some, about=some.about | about)
    statistics, _ = load(path)
    if some is not None:  # the statistics are of all images, arr_0 has some of them
        kept = some.statistics
        statistics = replace(statistics, features=kept.features, numbers=kept.numbers)
    return Reference(statistics, about, pictures)


@dataclass(frozen=True, eq=False)
class _GeneratedImages:
    """Samples of a folder, in the channels of those that are compared with them."""

    samples: SampleFolder
    channels: int
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, numbers: Tensor, /) -> Tensor:
        """Return the samples (B,), (B, C, H, W) uint8."""
        return in_channels(self.samples.read(numbers), self.channels, self.samples.folder)


def _of_samples(
    samples: SampleFolder, image: tuple[int, int, int], classes: tuple[str, ...], how: FeatureExtraction
) -> Reference | None:
    """Return samples that sitkit has drawn as a reference; they have labels if their classes are among `classes`."""
    samples.check()
    own = samples.content
    if own.image[1:] != image[1:]:
        raise UserError(
            f"{samples.folder} has images of {own.image[2]}x{own.image[1]}, and samples are {image[2]}x{image[1]}"
        )
    known = {name: label for label, name in enumerate(classes)}
    labels = None
    if samples.labels is not None and all(name in known for name in own.classes):
        labels = torch.tensor([known[name] for name in own.classes])[samples.labels]
    pictures = _GeneratedImages(samples, image[0], labels)
    of = str(samples.crc(range(len(samples))))
    return of_images(pictures, str(samples.folder), _identity(pictures, image, False, of), how)


def _of_statistics(path: Path, image: tuple[int, int, int], how: FeatureExtraction) -> Reference:
    statistics, about = load(path)
    assert about is not None
    own, wanted = about.get("features", {}), how.describe()
    if own.get("sha256") != wanted["sha256"] or own.get("name") != wanted["name"]:
        raise UserError(
            f"{path} has statistics of {own.get('name')} {str(own.get('sha256'))[:12]}, and evaluation.features is "
            f"{wanted['name']} {wanted['sha256'][:12]}: choose the same"
        )
    if about.get("image", list(image)) != list(image):
        raise UserError(f"{path} has statistics of images {about['image']}, and samples are {list(image)}")
    return Reference(statistics, about | {"file": str(path), "file_sha256": sha256(path)}, None)


def state_of(reference: Path) -> str:
    """Return a name for what stands at a path: another one whenever it was written.

    Raises:
        UserError: there is nothing.
    """
    if not _is_folder(reference):
        return state_of_files(reference.parent, [reference.name])
    if os.path.isfile(reference / CONTENT):
        samples = SampleFolder.open(reference)
        return str(samples.crc(range(len(samples))))
    try:
        return state_of_files(reference, list_files(reference, image_suffixes()).names)
    except ValueError as error:
        raise UserError(str(error)) from error


def _is_folder(path: Path) -> bool:
    """Return whether a folder stands at a path, or something else.

    Raises:
        UserError: there is nothing, or it cannot be looked at.
    """
    try:
        check_utf8(str(path))
        return S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"there is no reference {path}: a folder of images or samples, or an npz with mu and sigma or arr_0"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise UserError(str(error)) from error


def state_of_files(folder: Path, names: Sequence[str]) -> str:
    """Return the state of files in a folder, by their names below it."""
    return FileFingerprints([folder / name for name in names], [str(folder / name) for name in names]).cache_key(
        torch.arange(len(names))
    )


def _identity(pictures: ImageSource, image: tuple[int, int, int], crop: bool, of: str) -> str:
    """Return a name for pictures in files of a state; it depends on how they are read, and on their labels."""
    return _digest([image, crop, of, None if pictures.labels is None else pictures.labels.tolist()])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]
