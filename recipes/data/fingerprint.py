"""Digests that identify images: fingerprints for runs, and cache keys for cached results.

- `fingerprint` does not depend on where the images are stored. A run records it. For files it covers their number and
  order, the name and size of each, and the content of at most `MAX_FILES_READ` of them, evenly spaced. For images in
  memory it covers all pixels. For latents, see the method `fingerprint` of their class.
- `cache_key` changes whenever a file is written, so that a cached result can be trusted without reading all files. For
  files it covers mtime and ctime in nanoseconds instead of the content of some. It therefore also changes when files
  are copied, even if their content is the same.

Both call a method of the images, which custom data may define:

    def fingerprint(self, indices: Tensor, sample: int, /) -> str
    def cache_key(self, indices: Tensor, /) -> str

`indices` (M,) int64 selects images, and `sample` is the maximum number of files to read. Images without the methods
have no fingerprint, and their cache key is the sha256 of all their pixels.
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
"""How many files `fingerprint` reads at most."""
BATCH = 256
"""How many files one thread inspects at a time, and how many images are read at once."""


def fingerprint(images: Images, indices: Tensor | None = None, sample: int = MAX_FILES_READ) -> str | None:
    """Return the fingerprint of images, all or the given ones (M,) int64; None if they have none.

    Labels are not covered. A million files take a million calls of `stat`, and `sample` files are read.
    """
    method = getattr(images, "fingerprint", None)
    if method is None:
        return None
    found = method(_all_indices(images) if indices is None else indices, sample)
    return None if found is None else str(found)


def cache_key(images: Images, indices: Tensor | None = None) -> str:
    """Return the cache key of images and their labels, all or the given ones (M,) int64.

    A million files take a million calls of `stat`. Images without the method `cache_key` are all read.
    """
    indices = _all_indices(images) if indices is None else indices
    digest = hashlib.sha256(images.labels[indices].numpy().tobytes())
    method = getattr(images, "cache_key", None) or getattr(images, "state", None)  # its name in earlier versions
    if method is not None:
        digest.update(str(method(indices)).encode())
        return digest.hexdigest()
    for some in torch.split(indices, BATCH):
        digest.update(images.read(some).contiguous().numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class FileFingerprints:
    """Computes fingerprints and cache keys of images that are files.

    Args:
        files: the paths.
        names: the names to cover, which do not depend on where the files are stored.
    """

    files: Sequence[Path]
    names: Sequence[str]

    def fingerprint(self, indices: Tensor, sample: int, /) -> str:
        """Return the sha256 of names, sizes, and the content of some files.

        A file that cannot be read counts as one of size -1; opening it raises an error later.
        """
        chosen = indices.tolist()
        files = [self.files[index] for index in chosen]
        digest = hashlib.sha256()
        for index, (size, *_) in zip(chosen, _map(_stat, files), strict=True):
            digest.update(text_line(self.names[index], size))
        for content in _map(_sha256, files[:: max(1, -(-len(files) // sample))]):
            digest.update(content)
        return digest.hexdigest()

    def cache_key(self, indices: Tensor, /) -> str:
        """Return the sha256 of names, sizes, mtime and ctime of files."""
        chosen = indices.tolist()
        digest = hashlib.sha256()
        for index, stat in zip(chosen, _map(_stat, [self.files[index] for index in chosen]), strict=True):
            digest.update(text_line(self.names[index], *stat))
        return digest.hexdigest()


def _all_indices(images: Images) -> Tensor:
    return torch.arange(len(images))


def _stat(file: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(file)
    except OSError:
        return -1, 0, 0
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns) if S_ISREG(found.st_mode) else (-1, 0, 0)


def _sha256(file: Path) -> bytes:
    try:
        if not file.is_file():  # reading a pipe could block
            return b""
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError:
        return b""


def _map(function: Callable[[Path], T], files: Sequence[Path]) -> list[T]:
    """Apply a function to each file in many threads, since network file systems have a high latency."""
    chunks = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    return [
        one for chunk in thread_pool().map(lambda chunk: [function(file) for file in chunk], chunks) for one in chunk
    ]
