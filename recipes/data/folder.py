"""Image files in folders, one folder for each class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..storage.files import read_regular
from ..support.errors import UserError
from .classes import describe_images
from .file_listing import list_files
from .fingerprint import FileFingerprints
from .image_decoding import decode_square, image_suffixes
from .images import Split
from .lazy_images import LazyImages, check_size
from .splits import split_images
from .unreadable_images import ADVICE, find_readable

UNREADABLE_FILE = "unreadable.json"


def folder(
    path: str,
    size: int,
    heldout: str = "none",
    split: float | Literal["none"] = "none",
    unreadable: Literal["stop", "skip"] = "stop",
) -> Split:
    """Return the image files of a folder, as RGB squares cropped as in ADM (`image_decoding.py`).

    Image files are those of the formats that Pillow decodes; a note says how many others are ignored. The subfolders
    are the classes, sorted by name, and hold images at any depth. A folder of images without subfolders has no classes.
    Files are listed at the start and opened on access. Image n is the n-th file by class and name.

    Args:
        path: the folder.
        size: the side of an image, in pixels.
        heldout: a folder of held-out images, of the same classes.
        split: instead of `heldout`, the fraction of every class to train on, the rest being held out.
        unreadable: `stop` at an image that is damaged, or `skip` all such images. With `skip`, every image is opened
            once before the first step. A note names the skipped images, and `unreadable.json` in the folder records
            them until a file is added, removed, renamed or written. A file that the system refuses to open is an error
            in either case. A run that stopped at an image can be resumed with `skip` if `split` is none; its batches
            differ from there on.

    Raises:
        ValueError: a folder is missing, empty or of other classes, or the size or the fraction is invalid.
        UserError: files cannot be read, or an image is damaged; the latter is raised on access.
    """
    check_size(size)
    training, classes, note = _images(Path(path), size, unreadable)
    if heldout == "none":
        return Split(*split_images(training, None, split), classes, notes=(note,))
    compared, others, heldout_note = _images(Path(heldout), size, unreadable)
    if others != classes:
        differing = ", ".join(sorted(set(classes) ^ set(others))[:5])
        raise ValueError(f"{path} and {heldout} must have the same subfolders, the classes; only one has: {differing}")
    return Split(*split_images(training, compared, split), classes, notes=(note, heldout_note))


def _images(root: Path, size: int, unreadable: str) -> tuple[LazyImages, tuple[str, ...], str]:
    """Return the images of a folder, their classes, and a note about them."""
    found = list_files(root, image_suffixes())
    names, skipped = found.names, ""
    if unreadable == "skip":
        listed, file = names, root / UNREADABLE_FILE
        key = FileFingerprints([root / name for name in listed], listed).cache_key(torch.arange(len(listed)))
        indices, skipped = find_readable(lambda index: _read(root / listed[index], size), listed, key, file, str(root))
        names = [listed[index] for index in indices]
    if (root / UNREADABLE_FILE).is_file():  # written by this function
        found.others[".json"] -= 1
    if not names:
        raise ValueError(f"{root} holds no images that Pillow can read; {found.describe_ignored() or 'it is empty'}")
    classes, labels = _classes(root, names)
    note = describe_images(str(root), labels, classes, found.describe_ignored(), skipped)
    within = [name.split("/", 1)[-1] for name in names]  # renaming a class does not change the fingerprint
    fingerprints = FileFingerprints([root / name for name in names], within)
    return LazyImages(lambda index: _read(root / names[index], size), labels, size, fingerprints, ADVICE), classes, note


def _read(file: Path, size: int) -> Tensor:
    try:
        encoded = read_regular(file)
    except OSError as error:
        raise UserError(f"{file} cannot be opened: {error.strerror}") from error
    return decode_square(encoded, size, str(file))


def _classes(root: Path, names: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    """Return the names of the classes, and the label of each file, (N,) int64."""
    if not any("/" in name for name in names):
        return (), torch.zeros(len(names), dtype=torch.int64)
    if loose := [name for name in names if "/" not in name]:
        raise ValueError(f"{root} holds both images and subfolders: move {loose[0]} into the subfolder of its class")
    of_each = [name.split("/", 1)[0] for name in names]
    classes = sorted(set(of_each))
    try:
        folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise ValueError(f"{root} cannot be listed: {error.strerror}") from error
    if empty := [name for name in folders if name not in set(classes)]:
        raise ValueError(f"{root / empty[0]} holds no images, but would be a class: remove the folder")
    number = {name: label for label, name in enumerate(classes)}
    return tuple(classes), torch.from_numpy(np.array([number[name] for name in of_each], dtype=np.int64))
