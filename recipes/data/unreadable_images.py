"""Finds images that cannot be read, and records them in a file so that they are checked only once."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from ..storage.files import read_regular
from ..support.progress import print_once, progress
from .image_decoding import UnreadableImageError
from .lazy_images import load_each

ADVICE = "repair them, or set data.unreadable = skip to skip unreadable images"


def find_readable(
    load: Callable[[int], Tensor], names: Sequence[str], key: str, file: Path, where: str
) -> tuple[list[int], str]:
    """Return the indices of the readable images, and a message about the others, if any.

    Every image is opened once. The unreadable ones are recorded in a file, which is used the next time as long as the
    names and the cache key of the images are the same.

    Args:
        load: maps an index to the image.
        names: the names of all images, by index.
        key: the cache key of the images.
        file: the file of the record.
        where: the name of the images in messages.

    Raises:
        UserError: the system refuses to open a file.
    """
    digest = hashlib.sha256("\n".join([*names, key]).encode()).hexdigest()
    bad = _recorded(file, digest)
    if bad is None:
        bad = _find(load, names, where)
        try:
            file.write_text(json.dumps({"listing": digest, "unreadable": sorted(bad)}, indent=1))
        except OSError as error:
            print_once(f"{file} cannot be written ({error.strerror}): the images will be checked again next time")
    few = ", ".join(sorted(bad)[:5]) + (", ..." if len(bad) > 5 else "")
    message = f"{len(bad):,} of {len(names):,} images are unreadable and skipped: {few}" if bad else ""
    return [index for index, name in enumerate(names) if name not in bad], message


def _recorded(file: Path, digest: str) -> set[str] | None:
    try:
        known = json.loads(read_regular(file))
        return set(known["unreadable"]) if known["listing"] == digest else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _find(load: Callable[[int], Tensor], names: Sequence[str], where: str) -> set[str]:
    bad: set[str] = set()
    with progress(f"checking {where}", len(names), unit="images") as advance:
        for start in range(0, len(names), 1024):
            indices = range(start, min(start + 1024, len(names)))
            found = load_each(lambda index: load(index).shape, indices)
            bad |= {names[n] for n, one in zip(indices, found, strict=True) if isinstance(one, UnreadableImageError)}
            advance(len(indices))
    return bad
