"""Images of one's own, in folders."""

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
    """Return the image files of a folder, as RGB squares cut like ADM's (`crop.py`).

    They are the files of the formats that Pillow decodes; how many others were passed over is told in a line. The
    folders in it are the classes, sorted by name, and hold images at any depth; with images and no folders in it there
    are no classes. Files are listed at the start and opened when they are asked for. Image number n is the n-th file by
    class and name.

    Args:
        path: the folder.
        size: the side of an image, in pixels.
        heldout: a folder of images to compare with, of the same classes.
        split: or else the share of every class to train on, the rest being held out.
        unreadable: `stop` at an image that is damaged, or `skip` all such images. To skip them, every image is opened
            once before the first step; what is left out is told of, and kept in `unreadable.json` in the folder for the
            next time, until a file is added, removed, renamed or written. A file that the system does not let one open
            stops. A run that has stopped at an image may go on with `skip`, if `split` is none; its batches
            are other ones from there on.

    Raises:
        ValueError: a folder is missing, empty or of other classes, or the size or the share cannot be.
        UserError: an image is damaged, when it is asked for; or files cannot be read.
    """
    check_size(size)
    training, classes, told = _images(Path(path), size, unreadable)
    if heldout == "none":
        return Split(*split_images(training, None, split), classes, notes=(told,))
    compared, others, more = _images(Path(heldout), size, unreadable)
    if others != classes:
        differing = ", ".join(sorted(set(classes) ^ set(others))[:5])
        raise ValueError(f"{path} and {heldout} must have the same folders, one a class; only one has: {differing}")
    return Split(*split_images(training, compared, split), classes, notes=(told, more))


def _images(root: Path, size: int, unreadable: str) -> tuple[LazyImages, tuple[str, ...], str]:
    """Return the images of a folder, their classes, and a line on them."""
    found = list_files(root, image_suffixes())
    names, skipped = found.names, ""
    if unreadable == "skip":
        listed, file = names, root / UNREADABLE_FILE
        state = FileFingerprints([root / name for name in listed], listed).cache_key(torch.arange(len(listed)))
        kept, skipped = find_readable(lambda number: _read(root / listed[number], size), listed, state, file, str(root))
        names = [listed[number] for number in kept]
    if (root / UNREADABLE_FILE).is_file():  # which is our own
        found.others[".json"] -= 1
    if not names:
        raise ValueError(f"{root} holds no image that Pillow reads; {found.describe_skipped() or 'it is empty'}")
    classes, labels = _classes(root, names)
    told = describe_images(str(root), labels, classes, found.describe_skipped(), skipped)
    within = [name.split("/", 1)[-1] for name in names]  # a class may be renamed, and its images be the same
    origin = FileFingerprints([root / name for name in names], within)
    return LazyImages(lambda number: _read(root / names[number], size), labels, size, origin, ADVICE), classes, told


def _read(file: Path, size: int) -> Tensor:
    try:
        encoded = read_regular(file)
    except OSError as error:
        raise UserError(f"{file} cannot be opened: {error.strerror}") from error
    return decode_square(encoded, size, str(file))


def _classes(root: Path, names: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    """Return the classes, and the label of each file, (N,) int64."""
    if not any("/" in name for name in names):
        return (), torch.zeros(len(names), dtype=torch.int64)
    if loose := [name for name in names if "/" not in name]:
        raise ValueError(f"{root} holds images beside folders of them: put {loose[0]} into the folder of its class")
    of_each = [name.split("/", 1)[0] for name in names]
    classes = sorted(set(of_each))
    try:
        folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise ValueError(f"{root} cannot be listed: {error.strerror}") from error
    if empty := [name for name in folders if name not in set(classes)]:
        raise ValueError(f"{root / empty[0]} holds no image, and would be a class: remove the folder")
    number = {name: label for label, name in enumerate(classes)}
    return tuple(classes), torch.from_numpy(np.array([number[name] for name in of_each], dtype=np.int64))
