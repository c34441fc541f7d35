"""Encodes images to a latent cache, so that training does not need the autoencoder.

The work is divided into blocks. Process `rank` of `world_size` takes the blocks b with b mod world_size = rank.
Processes communicate through the folder only. Each block is encoded separately, so that its content does not depend on
the process: equal to the bit on the CPU, and on a GPU as far as its reductions are deterministic.
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
"""How many blocks are read ahead while another is encoded."""


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
    timeout: float = 3600.0,
    say: Callable[[str], None],
) -> None:
    """Encode images and their horizontal flips; write the moments of their latents to a folder that `latents` reads.

    Encoding can be interrupted at any time. Another call, in any number of processes, resumes after finished blocks.

    Args:
        images: the images to encode, whose `read` returns pixels (B, 1 or 3, H, W).
        classes: the names of the classes.
        out: the folder of the cache; see `cache.py` for its files.
        source: where the images come from; an unfinished encoding is resumed only if the fingerprint is the same.
        vae: the autoencoder, on the device to compute on.
        vae_source: the name of the autoencoder, by which `latents` loads it.
        batch: how many images are encoded at once; affects rounding only.
        unreadable: `stop` at a block with images that cannot be read, or `skip` these images: their rows have the
            label -1 and moments of NaN, and the index lists them in `left_out`. The indices of other images do not
            depend on this, so that an encoding that stopped can be resumed with `skip`.
        rank: the rank of this process.
        world_size: the number of processes.
        block: how many images a new cache has in a block.
        threads: how many images are read at once.
        timeout: how many seconds rank 0 waits for the next block of other ranks, and these for rank 0 to create the
            cache.
        say: prints a line.

    Raises:
        UserError: images cannot be read or encoded, the folder holds something else or cannot be written, its disk has
            no room for the cache, or other processes do not respond.
    """
    if not len(images):
        raise UserError(f"{source.description} holds no images")
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
    writer = create_or_resume(out, wanted, rank, timeout)
    if isinstance(writer, CacheIndex):
        if writer.images and writer.images != fingerprint(images):
            raise UserError(
                f"{out} has the latents of other images with the same names: remove it to encode these, or give "
                "another --out"
            )
        say(f"{out} has the latents of {writer.count - len(writer.left_out)} images already")
        return
    skip = unreadable == "skip"
    writer = replace(writer, cache_key=partial(_cache_key, images))
    finished = writer.markers(skip)
    if (out / INDEX).exists():  # rank 0 has finished in the meantime and removed the markers
        return
    assigned = range(rank, writer.blocks, world_size)
    left = [block for block in assigned if block not in finished]
    total, done = (sum(len(writer.rows(one)) for one in part) for part in (assigned, finished.keys() & assigned))
    what = "encoding" if world_size == 1 else f"encoding, rank {rank} of {world_size},"
    ahead = _read_ahead(images, [writer.rows(one) for one in left], threads)
    with closing(ahead) as blocks, progress(what, total, done, "images", quiet=rank > 0) as advance:
        for one, (key, found) in zip(left, blocks, strict=True):
            skipped = [SkippedImage(number=n, reason=str(e)) for n, e in found.items() if isinstance(e, UserError)]
            if skipped and not skip:
                reasons = "".join(f"\n  {image.reason}" for image in skipped)
                raise UserError(
                    f"{len(skipped)} of {len(found)} images of a block cannot be read: repair them, or skip them with "
                    f"--unreadable skip:{reasons}"
                )
            writer.write(one, _moments(vae, found, batch, wanted.moments[1:]), skipped, key)
            advance(len(found))
    if rank == 0:
        index = writer.finish(labels, writer.wait(skip, timeout, say), fingerprint(images) or "")
        note = f", {len(index.left_out)} skipped" if index.left_out else ""
        say(f"{out} has the latents of {index.count - len(index.left_out)} images{note}")


def _read_ahead(
    images: Images, blocks: Iterable[range], threads: int
) -> Generator[tuple[str, dict[int, Tensor | UserError]], None, None]:
    """Yield for each block the cache key of its images, and each image, (1, C, H, W) uint8, or its error, by index."""
    pool = ThreadPoolExecutor(threads)
    ahead: deque[tuple[str, dict[int, Future[Tensor | UserError]]]] = deque()
    try:
        for rows in blocks:
            key = _cache_key(images, rows)  # before the images are read
            ahead.append((key, {index: pool.submit(_read, images, index) for index in rows}))
            if len(ahead) > BLOCKS_AHEAD:
                yield _results(*ahead.popleft())
        while ahead:
            yield _results(*ahead.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _results(key: str, futures: dict[int, Future[Tensor | UserError]]) -> tuple[str, dict[int, Tensor | UserError]]:
    return key, {index: future.result() for index, future in futures.items()}


def _cache_key(images: Images, rows: range) -> str:
    """Return the cache key of some images; empty if it requires reading them, and they are unreadable."""
    try:
        return cache_key(images, torch.tensor(rows))
    except UserError:
        return ""


def _read(images: Images, index: int) -> Tensor | UserError:
    try:
        return images.read(torch.tensor([index]))
    except UserError as problem:  # of an unreadable image, the reason without the advice
        return problem.__cause__ if isinstance(problem.__cause__, UnreadableImageError) else problem


def _moments(
    vae: autoencoders.VAE, found: dict[int, Tensor | UserError], batch: int, shape: tuple[int, ...]
) -> np.ndarray:
    """Return the moments of images and their flips, (b, *shape) float16; NaN where an image is unreadable."""
    moments = torch.full((len(found), *shape), torch.nan, dtype=torch.float16)
    readable = [(row, index, x) for row, (index, x) in enumerate(found.items()) if isinstance(x, Tensor)]
    for first in range(0, len(readable), batch):
        rows, indices, images = zip(*readable[first : first + batch], strict=True)
        pixels = torch.cat(images)
        both = torch.stack([autoencoders.encode(vae, one) for one in (pixels, pixels.flip(-1))], dim=1).half().cpu()
        finite = both.isfinite().flatten(1).all(1)
        if not finite.all():
            raise UserError(f"the latents of image {indices[int(finite.long().argmin())]} are not finite in float16")
        moments[list(rows)] = both
    return moments.numpy()
