"""Fingerprints of images: sha256 that are others if the images are.

There are two, for two uses.

- `fingerprint` is the same wherever the images lie, and belongs to a run. Of files it covers the number and order, each
  one's name and size in bytes, and the content of `SAMPLE` of them, spread evenly: all of them, if they are no more. Of
  images in memory it covers all pixels; of latents, what `Images.fingerprint` of their kind says.
- `state` is for caches, which must be as strong as the content that they stand for. Of files it covers, instead of the
  content of some, when each was last written and when its entry was last changed (mtime and ctime, in nanoseconds): it
  is another after any file was written, and also after files were copied, though they be the same.

Images tell of both by two methods, which data of the user's own may have or not:

    def fingerprint(self, numbers: Tensor, sample: int, /) -> str
    def cache_key(self, numbers: Tensor, /) -> str

Both are given the numbers of some images (M,) int64. Images without them have no fingerprint; their state is the sha256
of all pixels, which are read for it.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import TypeVar

import torch
from torch import Tensor

from ..support.digests import text_line
from .images import Images
from .lazy_images import thread_pool

T = TypeVar("T")

MAX_FILES_READ = 4096
"""Files of which the content is read, at most."""
BATCH = 256
"""Files, or images, looked at by one thread at a time."""


def fingerprint(images: Images, numbers: Tensor | None = None, sample: int = MAX_FILES_READ) -> str | None:
    """Return the fingerprint of images, or of some (M,) int64; None if they do not tell. Labels are not covered.

    A million files take a million calls of `stat` and the reading of `sample` files.
    """
    tell = getattr(images, "fingerprint", None)
    if tell is None:
        return None
    found = tell(_all(images) if numbers is None else numbers, sample)
    return None if found is None else str(found)


def cache_key(images: Images, numbers: Tensor | None = None) -> str:
    """Return a key for what is computed from images, all or some (M,) int64: another whenever a file was written.

    It covers labels.

    A million files take a million calls of `stat`. Images that do not tell are read, all of them.
    """
    numbers = _all(images) if numbers is None else numbers
    digest = hashlib.sha256(images.labels[numbers].numpy().tobytes())
    tell = getattr(images, "cache_key", None) or getattr(images, "state", None)  # its name in earlier versions
    if tell is not None:
        digest.update(str(tell(numbers)).encode())
        return digest.hexdigest()
    for some in torch.split(numbers, BATCH):
        digest.update(images.read(some).contiguous().numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class FileFingerprints:
    """Files, an image each, as an origin of images.

    Args:
        files: where they are.
        names: what to call them, wherever they are.
    """

    files: Sequence[Path]
    names: Sequence[str]

    def fingerprint(self, numbers: Tensor, sample: int, /) -> str:
        """Return the sha256 of names, sizes, and the content of some files.

        A file that cannot be read counts as one of size -1: whoever opens it is told.
        """
        chosen = numbers.tolist()
        files = [self.files[number] for number in chosen]
        digest = hashlib.sha256()
        for number, (size, *_) in zip(chosen, _map(_stat, files), strict=True):
            digest.update(text_line(self.names[number], size))
        for content in _map(_sha256, files[:: max(1, -(-len(files) // sample))]):
            digest.update(content)
        return digest.hexdigest()

    def cache_key(self, numbers: Tensor, /) -> str:
        """Return the sha256 of names, sizes, mtime and ctime of files."""
        chosen = numbers.tolist()
        digest = hashlib.sha256()
        for number, stat in zip(chosen, _map(_stat, [self.files[number] for number in chosen]), strict=True):
            digest.update(text_line(self.names[number], *stat))
        return digest.hexdigest()


def _all(images: Images) -> Tensor:
    return torch.arange(len(images))


def _stat(file: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(file)
    except OSError:
        return -1, 0, 0
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns) if S_ISREG(found.st_mode) else (-1, 0, 0)


def _sha256(file: Path) -> bytes:
    try:
        if not file.is_file():  # a pipe would be waited for
            return b""
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError:
        return b""


def _map(function: Callable[[Path], T], files: Sequence[Path]) -> list[T]:
    """Return what a function makes of each file, by many threads: a network's disk answers slowly, and many at once."""
    chunks = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    return [
        one for chunk in thread_pool().map(lambda chunk: [function(file) for file in chunk], chunks) for one in chunk
    ]
