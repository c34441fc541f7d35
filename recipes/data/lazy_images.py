"""Images that are read from files on access, in parallel threads."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from ..support.errors import UserError
from .image_decoding import UnreadableImageError
from .images import Fingerprints, NoiseFunction, to_states

T = TypeVar("T")


@cache
def thread_pool() -> ThreadPoolExecutor:
    """Return the threads that read and decode images; Pillow and file access release the interpreter lock."""
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="images")


def load_each(load: Callable[[int], T], indices: Iterable[int]) -> list[T | UnreadableImageError]:
    """Return `load(index)` for each index, computed by many threads; for an unreadable image, its error."""

    def attempt(index: int) -> T | UnreadableImageError:
        try:
            return load(index)
        except UnreadableImageError as error:
            return error

    return list(thread_pool().map(attempt, indices))


def load_batch(load: Callable[[int], Tensor], indices: Tensor, shape: tuple[int, ...], advice: str = "") -> Tensor:
    """Return the stack of `load(index)` for indices (B,), each of the given shape: (B, *shape).

    Raises:
        UserError: images are unreadable. The message names all of them and ends with `advice`; the cause is the first.
    """
    loaded = load_each(load, indices.tolist())
    if unreadable := [one for one in loaded if isinstance(one, UnreadableImageError)]:
        reasons = dict.fromkeys(map(str, unreadable))
        raise UserError("; ".join([*reasons, advice] if advice else reasons)) from unreadable[0]
    tensors = [one for one in loaded if isinstance(one, Tensor)]
    return torch.stack(tensors) if tensors else torch.empty(0, *shape, dtype=torch.uint8)


@dataclass(frozen=True, eq=False)
class LazyImages:
    """Images that are read on access. A state is the image's pixels, scaled to [-1, 1].

    Args:
        load: maps an index to the image, (3, size, size) uint8; called by many threads at once.
        labels: (N,) int64.
        size: the side of an image, in pixels.
        fingerprints: computes fingerprints and cache keys (`fingerprint.py`).
        advice: what the user can do about unreadable images.
    """

    load: Callable[[int], Tensor]
    labels: Tensor
    size: int
    fingerprints: Fingerprints
    advice: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (3, size, size) of a state."""
        return 3, self.size, self.size

    def __len__(self) -> int:
        return len(self.labels)

    def states(self, indices: Tensor, flips: Tensor, noise: NoiseFunction, /) -> Tensor:
        """Return states, (B, 3, size, size) float32, flipped horizontally where `flips` (B,) is True.

        Raises:
            UserError: images are unreadable; the message names all of them.
        """
        pixels = self.read(indices)
        return to_states(torch.where(flips[:, None, None, None], pixels.flip(-1), pixels))

    def read(self, indices: Tensor, /) -> Tensor:
        """Return pixels, (B, 3, size, size) uint8.

        Raises:
            UserError: images are unreadable; the message names all of them.
        """
        return load_batch(self.load, indices, self.shape, self.advice)

    def fingerprint(self, indices: Tensor, sample: int, /) -> str:
        """Return the fingerprint of images (M,)."""
        return self.fingerprints.fingerprint(indices, sample)

    def cache_key(self, indices: Tensor, /) -> str:
        """Return the cache key of images (M,)."""
        return self.fingerprints.cache_key(indices)


def check_size(size: int) -> None:
    """Raise ValueError unless the side of an image is valid."""
    if size < 1:
        raise ValueError(f"size is the side of an image in pixels and must be at least 1, got {size}")
