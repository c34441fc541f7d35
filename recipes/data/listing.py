"""The files in a folder and below it, always in the same order."""

import os
from collections.abc import Iterator
from pathlib import Path


def listing(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Return the files with one of these suffixes, in any case, relative to the folder and with '/' between names.

    Hidden files and folders are passed over, links are followed, and no file is opened. Files are sorted by their
    first folder, then by the next, and last by name, each by code points: as no file system and no locale decides.

    Raises:
        ValueError: there is no such folder, it cannot be listed, or a link leads back to a folder above it.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    try:
        found = _walk(folder, "", suffixes, (os.path.realpath(folder),))
        return sorted(found, key=lambda name: name.split("/"))
    except OSError as error:
        raise ValueError(f"{error.filename or folder} cannot be listed: {error.strerror}") from error


def _walk(folder: Path, prefix: str, suffixes: tuple[str, ...], above: tuple[str, ...]) -> Iterator[str]:
    with os.scandir(folder / prefix) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                if real in above:
                    raise ValueError(f"{entry.path} links to a folder that it lies in: remove the link")
                yield from _walk(folder, f"{name}/", suffixes, (*above, real))
            elif entry.name.lower().endswith(suffixes):
                yield name
