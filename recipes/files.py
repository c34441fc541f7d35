"""Files that are either whole or as they were, and known by their content."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

PIECE = 1 << 24
"""Bytes read at once."""


def write_whole(file: Path, content: bytes) -> None:
    """Write a file so that it is there with all its content or as it was before."""
    draft = file.with_name(f".{file.name}.tmp")
    try:
        draft.write_bytes(content)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def sha256(file: Path, advance: Callable[[int], None] = lambda count: None) -> str:
    """Return a file's sha256, hexadecimal; `advance` is told of the bytes read."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(PIECE):
            digest.update(piece)
            advance(len(piece))
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Return when a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
