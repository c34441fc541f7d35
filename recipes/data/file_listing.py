"""Lists the files in a folder and its subfolders, in an order that does not depend on the file system."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileListing:
    """The files of a folder that have one of the wanted suffixes, and the number of others.

    Args:
        names: paths relative to the folder, separated by '/'.
        others: the number of other files, by suffix.
    """

    names: list[str]
    others: Counter[str]

    def describe_ignored(self) -> str:
        """Return a message about the other files; empty if there are none."""
        most_first = sorted(self.others.items(), key=lambda other: (-other[1], other[0]))
        others = [(suffix, count) for suffix, count in most_first if count > 0]
        most = [f"{count:,} {suffix or 'without a suffix'}" for suffix, count in others[:5]]
        more = ", ..." if len(others) > len(most) else ""
        return f"ignored: {', '.join(most)}{more}" if most else ""


def list_files(folder: Path, suffixes: tuple[str, ...]) -> FileListing:
    """List the files in a folder and its subfolders that have one of the suffixes, in upper or lower case.

    Hidden files and folders are ignored, links are followed, and no file is opened. Paths are sorted component by
    component, by code points, so that the order depends on neither the file system nor the locale.

    Raises:
        ValueError: the folder does not exist or cannot be listed, a name in it is not UTF-8, or a link points to a
            folder that contains it.
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
    """Raise ValueError unless a path is valid UTF-8: others can be neither printed nor written to JSON."""
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
                    raise ValueError(f"{entry.path} links to a folder that contains it: remove the link")
                yield from _walk(folder, f"{name}/", suffixes, (*above, real), others)
            elif entry.name.lower().endswith(suffixes):
                yield name
            else:
                others[os.path.splitext(entry.name)[1].lower()] += 1
