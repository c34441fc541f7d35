"""Images of one's own, in folders."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..problem import Problem
from ..progress import progress
from .crop import Unreadable, square
from .fingerprint import Files
from .images import Split
from .listing import listing
from .ondemand import OnDemand, check_size, each
from .parts import divide

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
LEFT_OUT = "unreadable.json"


def folder(
    path: str,
    size: int,
    heldout: str = "none",
    split: float | Literal["none"] = "none",
    unreadable: Literal["stop", "skip"] = "stop",
) -> Split:
    """Return the PNG, JPEG and WebP files of a folder, as RGB squares cut like ADM's (`crop.py`).

    The folders in it are the classes, sorted by name, and hold images at any depth; with images and no folders in it
    there are no classes. Files are listed at the start and opened when they are asked for. Image number n is the n-th
    file by class and name.

    Args:
        path: the folder.
        size: the side of an image, in pixels.
        heldout: a folder of images to compare with, of the same classes.
        split: or else the share of every class to train on, the rest being held out.
        unreadable: `stop` at an image that is damaged, or `skip` all such images. To skip them, every image is opened
            once before the first step; what is left out is told of, and kept in `unreadable.json` in the folder for the
            next time, until it is removed or files are added, removed or renamed. A file that the system does not let
            one open stops.

    Raises:
        ValueError: a folder is missing, empty or of other classes, or the size or the share cannot be.
        Problem: an image is damaged, when it is asked for; or files cannot be read.
    """
    check_size(size)
    training, classes = _images(Path(path), size, unreadable)
    if heldout == "none":
        return Split(*divide(training, None, split), classes)
    compared, others = _images(Path(heldout), size, unreadable)
    if others != classes:
        differing = ", ".join(sorted(set(classes) ^ set(others))[:5])
        raise ValueError(f"{path} and {heldout} must have the same folders, one a class; only one has: {differing}")
    return Split(*divide(training, compared, split), classes)


def _images(root: Path, size: int, unreadable: str) -> tuple[OnDemand, tuple[str, ...]]:
    names = listing(root, SUFFIXES)
    if unreadable == "skip":
        names = _without_unreadable(root, names, size)
    if not names:
        raise ValueError(f"{root} holds no image: no file in it or below ends in {', '.join(SUFFIXES)}")
    classes, labels = _classes(root, names)
    within = [name.split("/", 1)[-1] for name in names]  # a class may be renamed, and its images be the same
    origin = Files([root / name for name in names], within)
    return OnDemand(lambda number: _read(root / names[number], size), labels, size, origin), classes


def _read(file: Path, size: int) -> Tensor:
    try:
        encoded = file.read_bytes()
    except OSError as error:
        raise Problem(f"{file} cannot be opened: {error.strerror}") from error
    return square(encoded, size, str(file))


def _classes(root: Path, names: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    """Return the classes, and the label of each file, (N,) int64."""
    if not any("/" in name for name in names):
        return (), torch.zeros(len(names), dtype=torch.int64)
    if loose := [name for name in names if "/" not in name]:
        raise ValueError(f"{root} holds images beside folders of them: put {loose[0]} into the folder of its class")
    of_each = [name.split("/", 1)[0] for name in names]
    classes = sorted(set(of_each))
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if empty := [name for name in folders if name not in set(classes)]:
        raise ValueError(f"{root / empty[0]} holds no image, and would be a class: remove the folder")
    number = {name: label for label, name in enumerate(classes)}
    return tuple(classes), torch.from_numpy(np.array([number[name] for name in of_each], dtype=np.int64))


def _without_unreadable(root: Path, names: list[str], size: int) -> list[str]:
    """Return the files that can be read, and tell of the others."""
    digest = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()
    note = root / LEFT_OUT
    try:
        known = json.loads(note.read_text())
        bad = set(known["unreadable"]) if known["listing"] == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        bad = None
    if bad is None:
        bad = _find_unreadable(root, names, size)
        try:
            note.write_text(json.dumps({"listing": digest, "unreadable": sorted(bad)}, indent=1))
        except OSError as error:
            warnings.warn(f"{note} cannot be written ({error.strerror}): images are checked every time", stacklevel=2)
    if bad:
        few = ", ".join(sorted(bad)[:5]) + (", ..." if len(bad) > 5 else "")
        warnings.warn(f"{len(bad)} of {len(names)} images in {root} are unreadable and left out: {few}", stacklevel=2)
    return [name for name in names if name not in bad]


def _find_unreadable(root: Path, names: list[str], size: int) -> set[str]:
    bad: set[str] = set()
    with progress(f"checking {root}", len(names), unit="images") as advance:
        for start in range(0, len(names), 1024):
            numbers = range(start, min(start + 1024, len(names)))
            found = each(lambda number: _read(root / names[number], size).shape, numbers)
            bad |= {names[n] for n, one in zip(numbers, found, strict=True) if isinstance(one, Unreadable)}
            advance(len(numbers))
    return bad
