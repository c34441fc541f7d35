"""Images that cannot be read, found once and kept in a note."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from ..storage.files import read_regular
from ..support.progress import print_once, progress
from .image_decoding import UnreadableImageError
from .lazy_images import load_each

ADVICE = "mend them, or set data.unreadable = skip to leave out what cannot be read"


def find_readable(
    load: Callable[[int], Tensor], names: Sequence[str], state: str, file: Path, where: str
) -> tuple[list[int], str]:
    """Return the numbers of the images that can be read, and a line on the others if there are any.

    Every image is opened once. What is unreadable is written into a file, and stands there for the next time, as long
    as the images have the same names and state.

    Args:
        load: from a number to the image.
        names: of all images, by number.
        state: what is another if an image may be.
        file: the note.
        where: what to call the images.

    Raises:
        UserError: the system does not let one open a file.
    """
    digest = hashlib.sha256("\n".join([*names, state]).encode()).hexdigest()
    bad = _known(file, digest)
    if bad is None:
        bad = _find(load, names, where)
        try:
            file.write_text(json.dumps({"listing": digest, "unreadable": sorted(bad)}, indent=1))
        except OSError as error:
            print_once(f"{file} cannot be written ({error.strerror}): images are checked every time")
    few = ", ".join(sorted(bad)[:5]) + (", ..." if len(bad) > 5 else "")
    told = f"{len(bad):,} of {len(names):,} images are unreadable and left out: {few}" if bad else ""
    return [number for number, name in enumerate(names) if name not in bad], told


def _known(file: Path, digest: str) -> set[str] | None:
    try:
        known = json.loads(read_regular(file))
        return set(known["unreadable"]) if known["listing"] == digest else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _find(load: Callable[[int], Tensor], names: Sequence[str], where: str) -> set[str]:
    bad: set[str] = set()
    with progress(f"checking {where}", len(names), unit="images") as advance:
        for start in range(0, len(names), 1024):
            numbers = range(start, min(start + 1024, len(names)))
            found = load_each(lambda number: load(number).shape, numbers)
            bad |= {names[n] for n, one in zip(numbers, found, strict=True) if isinstance(one, UnreadableImageError)}
            advance(len(numbers))
    return bad
