"""Writing down the latents of images, once for all, so that training need not encode them.

The work is divided into blocks. Process `rank` of `world_size` takes the blocks b with b mod world_size = rank.
Processes communicate through the folder only. Each block is encoded separately, so its content does not depend on the
process: bit for bit on the CPU, and on a GPU as far as its sums are deterministic.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ...support.errors import UserError
from ...support.progress import progress
from ..fingerprint import cache_key, fingerprint
from ..image_decoding import UnreadableImageError
from ..images import Images
from . import vae as autoencoders
from .cache import INDEX, AutoencoderRecord, CacheIndex, SkippedImage, SourceRecord
from .cache_writer import CacheHeader
from .create import create_or_resume

BLOCKS_AHEAD = 2
"""Blocks whose images are read while another is encoded."""


def encode(
    images: Images,
    classes: Sequence[str],
    out: Path,
    *,
    source: SourceRecord,
    vae: autoencoders.VAE,
    vae_source: str,
    batch: int = 32,
    unreadable: Literal["stop", "skip"] = "stop",
    rank: int = 0,
    world_size: int = 1,
    block: int = 128,
    threads: int = 8,
    patience: float = 3600.0,
    say: Callable[[str], None],
) -> None:
    """Write the moments of the latents of images, and of their mirror images, into a folder that `latents` reads.

    It may be interrupted at any time; called again, by any number of processes, it goes on after the finished blocks.

    Args:
        images: what to encode: pixels (1 or 3, H, W), as `read` gives them, with their labels.
        classes: the names of the classes.
        out: the folder, see `cache` for its files.
        source: where the images come from; with another fingerprint an encoding that has begun is not gone on with.
        vae: the autoencoder, on the device on which it is to work.
        vae_source: its name, by which `latents` finds it again.
        batch: how many images are encoded at once; changes how numbers are rounded, and nothing else.
        unreadable: what to do about images that cannot be read: `stop` after the block in which they are, or `skip`
            them: their rows stay, with label -1 and moments that are not numbers, and the index names them in
            `left_out`. So no number depends on what could be read, and one may choose to skip when half is done.
        rank: the number of this process.
        world_size: the number of processes.
        block: how many images a block has, if none is begun yet.
        threads: how many images are read at once.
        patience: for how many seconds process 0 waits for another block of the others, and they for it to begin.
        say: is told of what happens.

    Raises:
        UserError: images cannot be read or encoded, the folder holds something else or cannot be written, there is no
            room for the cache, or other processes do not answer.
    """
    if not len(images):
        raise UserError(f"{source.description} has no images to encode")
    labels = images.labels.numpy().astype(np.int64)
    scale, shift = autoencoders.scaling(vae)
    wanted = CacheHeader(
        source=source,
        vae=AutoencoderRecord(
            source=vae_source,
            sha256=autoencoders.fingerprint(vae),
            encoder_sha256=autoencoders.fingerprint(vae, autoencoders.ENCODER),
        ),
        image=images.shape,
        latent=autoencoders.latent_shape(vae, images.shape),
        scale=scale,
        shift=shift,
        count=len(images),
        classes=tuple(classes),
        labels_sha256=hashlib.sha256(labels.tobytes()).hexdigest(),
        block=block,
    )
    draft = create_or_resume(out, wanted, rank, patience)
    if isinstance(draft, CacheIndex):
        if draft.images and draft.images != fingerprint(images):
            raise UserError(
                f"{out} has the latents of other images, of the same names: remove it to encode these, or give another "
                "--out"
            )
        say(f"{out} has the latents of {draft.count - len(draft.left_out)} images already")
        return
    skip = unreadable == "skip"
    draft = replace(draft, cache_key=partial(_cache_key, images))
    finished = draft.marks(skip)
    if (out / INDEX).exists():  # process 0 has finished meanwhile, and marks may have been gone
        return
    mine = range(rank, draft.blocks, world_size)
    left = [number for number in mine if number not in finished]
    total, done = (sum(len(draft.numbers(number)) for number in part) for part in (mine, finished.keys() & mine))
    what = "encoding" if world_size == 1 else f"encoding, process {rank} of {world_size},"
    ahead = _read_ahead(images, [draft.numbers(number) for number in left], threads)
    with closing(ahead) as blocks, progress(what, total, done, "images", quiet=rank > 0) as advance:
        for number, (state_before, found) in zip(left, blocks, strict=True):
            left_out = [
                SkippedImage(number=n, reason=str(one)) for n, one in found.items() if isinstance(one, UserError)
            ]
            if left_out and not skip:
                reasons = "".join(f"\n  {one.reason}" for one in left_out)
                raise UserError(
                    f"{len(left_out)} of {len(found)} images of a block cannot be read: mend them, or leave out what "
                    f"cannot be read with --unreadable skip:{reasons}"
                )
            draft.write(number, _moments(vae, found, batch, wanted.moments[1:]), left_out, state_before)
            advance(len(found))
    if rank == 0:
        index = draft.finish(labels, draft.wait(skip, patience, say), fingerprint(images) or "")
        told = f", {len(index.left_out)} left out" if index.left_out else ""
        say(f"{out} has the latents of {index.count - len(index.left_out)} images{told}")


def _read_ahead(
    images: Images, blocks: Iterable[range], threads: int
) -> Generator[tuple[str, dict[int, Tensor | UserError]], None, None]:
    """Yield of each block the state of its images, and these by number, (1, C, H, W) uint8, or why they are none."""
    pool = ThreadPoolExecutor(threads)
    ahead: deque[tuple[str, dict[int, Future[Tensor | UserError]]]] = deque()
    try:
        for numbers in blocks:
            state_before = _cache_key(images, numbers)
            ahead.append((state_before, {number: pool.submit(_read, images, number) for number in numbers}))
            if len(ahead) > BLOCKS_AHEAD:
                yield _results(*ahead.popleft())
        while ahead:
            yield _results(*ahead.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _results(
    state_before: str, futures: dict[int, Future[Tensor | UserError]]
) -> tuple[str, dict[int, Tensor | UserError]]:
    return state_before, {number: future.result() for number, future in futures.items()}


def _cache_key(images: Images, numbers: range) -> str:
    """Return the state of some images; none of those that would have to be read for it and cannot be."""
    try:
        return cache_key(images, torch.tensor(numbers))
    except UserError:
        return ""


def _read(images: Images, number: int) -> Tensor | UserError:
    try:
        return images.read(torch.tensor([number]))
    except UserError as problem:  # of an unreadable image, its reason alone
        return problem.__cause__ if isinstance(problem.__cause__, UnreadableImageError) else problem


def _moments(
    vae: autoencoders.VAE, found: dict[int, Tensor | UserError], batch: int, shape: tuple[int, ...]
) -> np.ndarray:
    """Return the moments of images and mirror images, (b, *shape) float16, not numbers where there is no image."""
    moments = torch.full((len(found), *shape), torch.nan, dtype=torch.float16)
    kept = [(place, number, image) for place, (number, image) in enumerate(found.items()) if isinstance(image, Tensor)]
    for first in range(0, len(kept), batch):
        places, numbers, pixels = zip(*kept[first : first + batch], strict=True)
        whole = torch.cat(pixels)
        both = torch.stack([autoencoders.encode(vae, one) for one in (whole, whole.flip(-1))], dim=1).half().cpu()
        finite = both.isfinite().flatten(1).all(1)
        if not finite.all():
            raise UserError(
                f"the autoencoder encodes image {numbers[int(finite.long().argmin())]} to no float16 numbers"
            )
        moments[list(places)] = both
    return moments.numpy()
