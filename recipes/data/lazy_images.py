"""Images that are read when they are asked for, many at a time."""

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
    """Return the threads that read and decode; Pillow and files let go of the interpreter's lock."""
    return ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="images")


def load_each(load: Callable[[int], T], numbers: Iterable[int]) -> list[T | UnreadableImageError]:
    """Return what `load` makes of every number, in their order, by many threads; what is unreadable as the error."""

    def attempt(number: int) -> T | UnreadableImageError:
        try:
            return load(number)
        except UnreadableImageError as error:
            return error

    return list(thread_pool().map(attempt, numbers))


def load_batch(load: Callable[[int], Tensor], numbers: Tensor, shape: tuple[int, ...], advice: str = "") -> Tensor:
    """Return what `load` makes of the numbers (B,), each of that shape, as (B, *shape).

    Raises:
        UserError: some are unreadable; it names them all, with advice, and its cause is the first of them.
    """
    loaded = load_each(load, numbers.tolist())
    if unreadable := [one for one in loaded if isinstance(one, UnreadableImageError)]:
        reasons = dict.fromkeys(map(str, unreadable))
        raise UserError("; ".join([*reasons, advice] if advice else reasons)) from unreadable[0]
    tensors = [one for one in loaded if isinstance(one, Tensor)]
    return torch.stack(tensors) if tensors else torch.empty(0, *shape, dtype=torch.uint8)


@dataclass(frozen=True, eq=False)
class LazyImages:
    """Images whose states are their pixels in [-1, 1], each read when it is asked for.

    Args:
        load: from a number to the image, (3, size, size) uint8; called by many threads at once.
        labels: (N,) int64.
        size: the side of an image, in pixels.
        origin: what tells the images from others (`fingerprint.py`).
        advice: what to do about images that are unreadable.
    """

    load: Callable[[int], Tensor]
    labels: Tensor
    size: int
    origin: Fingerprints
    advice: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, size, size)."""
        return 3, self.size, self.size

    def __len__(self) -> int:
        return len(self.labels)

    def states(self, numbers: Tensor, flips: Tensor, noise: NoiseFunction, /) -> Tensor:
        """Return states, (B, 3, size, size) float32, mirrored where `flips` (B,) says so.

        Raises:
            UserError: some images are unreadable; it names them all.
        """
        pixels = self.read(numbers)
        return to_states(torch.where(flips[:, None, None, None], pixels.flip(-1), pixels))

    def read(self, numbers: Tensor, /) -> Tensor:
        """Return the images, (B, 3, size, size) uint8.

        Raises:
            UserError: some images are unreadable; it names them all.
        """
        return load_batch(self.load, numbers, self.shape, self.advice)

    def fingerprint(self, numbers: Tensor, sample: int, /) -> str:
        """Return the fingerprint of images (M,)."""
        return self.origin.fingerprint(numbers, sample)

    def cache_key(self, numbers: Tensor, /) -> str:
        """Return the state of images (M,)."""
        return self.origin.cache_key(numbers)


def check_size(size: int) -> None:
    """Raise ValueError unless images can have that side."""
    if size < 1:
        raise ValueError(f"size is the side of an image in pixels, at least 1, got {size}")
