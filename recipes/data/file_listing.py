"""The files in a folder and below it, always in the same order."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileListing:
    """Files of a folder.

    Args:
        names: relative to the folder, with '/' between names.
        others: how many files have another ending, by the ending.
    """

    names: list[str]
    others: Counter[str]

    def describe_skipped(self) -> str:
        """Return a line on the other files; nothing if there are none."""
        most_first = sorted(self.others.items(), key=lambda other: (-other[1], other[0]))
        others = [(ending, count) for ending, count in most_first if count > 0]
        most = [f"{count:,} {ending or 'without an ending'}" for ending, count in others[:5]]
        more = ", ..." if len(others) > len(most) else ""
        return f"passed over: {', '.join(most)}{more}" if most else ""


def list_files(folder: Path, suffixes: tuple[str, ...]) -> FileListing:
    """Return the files with one of these suffixes, in any case.

    Hidden files and folders are passed over, links are followed, and no file is opened. Files are sorted by their
    first folder, then by the next, and last by name, each by code points: as no file system and no locale decides.

    Raises:
        ValueError: there is no such folder, it cannot be listed, a name in it is not UTF-8, or a link leads back to a
            folder above it.
    """
    check_utf8(str(folder))
    others: Counter[str] = Counter()
    try:
        found = _walk(folder, "", suffixes, (os.path.realpath(folder),), others)
        return FileListing(sorted(found, key=lambda name: name.split("/")), others)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"there is no folder {error.filename or folder}") from error
    except OSError as error:
        raise ValueError(f"{error.filename or folder} cannot be listed: {error.strerror}") from error


def check_utf8(path: str) -> None:
    """Raise ValueError unless a path is UTF-8: others cannot be printed, nor be written into JSON."""
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise ValueError(f"the name {shown} is not UTF-8: rename it, for instance with convmv -t utf8") from None


def _walk(
    folder: Path, prefix: str, suffixes: tuple[str, ...], above: tuple[str, ...], others: Counter[str]
) -> Iterator[str]:
    with os.scandir(folder / prefix) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.name.startswith("."):
                continue
            check_utf8(entry.path)
            if entry.is_dir():
                real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                if real in above:
                    raise ValueError(f"{entry.path} links to a folder that it lies in: remove the link")
                yield from _walk(folder, f"{name}/", suffixes, (*above, real), others)
            elif entry.name.lower().endswith(suffixes):
                yield name
            else:
                others[os.path.splitext(entry.name)[1].lower()] += 1
