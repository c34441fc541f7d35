"""Creates a latent cache, or opens one that is unfinished or finished, after comparing its content with the wanted."""

import os
import shutil
import time
from pathlib import Path

import numpy as np

from ...storage.files import is_occupied, read_regular, write_atomic
from ...storage.filesystems import fsync
from ...storage.work_partition import POLL_SECONDS
from ...support.errors import UserError
from .cache import INDEX, MOMENTS, PROGRESS, CacheContent, CacheIndex, SourceRecord, read_index
from .cache_writer import HEADER, CacheHeader, CacheWriter, moments_offset


def create_or_resume(folder: Path, wanted: CacheHeader, rank: int, timeout: float) -> CacheWriter | CacheIndex:
    """Return the writer of a new or an unfinished cache in a folder, or the index of a finished one.

    Rank 0 creates a new cache; the other ranks wait for it.

    Args:
        folder: the folder of the cache.
        wanted: the header of the cache to write. An unfinished cache keeps the block size that it was created with.
        rank: the rank of this process.
        timeout: how many seconds to wait for rank 0.

    Raises:
        UserError: the folder holds something else, its disk has no room for the cache, or rank 0 has not created it.
    """
    since = time.monotonic()
    while (found := _find(folder)) is None:
        if rank == 0:
            _create(folder, wanted)
            continue
        if time.monotonic() - since > timeout:
            raise UserError(f"rank 0 has not created {folder} within {timeout:.0f} s: start all processes again")
        time.sleep(POLL_SECONDS)
    _compare(folder, found, wanted)
    if isinstance(found, CacheIndex):
        if rank == 0:
            shutil.rmtree(folder / PROGRESS, ignore_errors=True)  # remains if a process was killed after the index
        return found
    if rank == 0:
        _check_space(folder, found)
    return CacheWriter(folder, found)


def _find(folder: Path) -> CacheHeader | CacheIndex | None:
    """Return the header of an unfinished cache, the index of a finished one, or None if there is no cache."""
    if (folder / INDEX).exists():
        return read_index(folder)
    try:
        found = CacheHeader.model_validate_json(read_regular(folder / PROGRESS / HEADER))
        size, expected = (folder / MOMENTS).stat().st_size, moments_offset(folder) + found.count * found.row_bytes
    except FileNotFoundError:
        return read_index(folder) if (folder / INDEX).exists() else None  # finished in the meantime, or not created
    except (OSError, ValueError) as error:
        raise UserError(f"the unfinished latents in {folder} are damaged ({error}); remove {folder}") from error
    if size != expected:
        raise UserError(f"{folder}: {MOMENTS} has {size} bytes instead of {expected}; remove {folder}")
    return found


def _create(folder: Path, wanted: CacheHeader) -> None:
    """Create an empty cache: first the file of the moments, then the header, by which the cache is recognised."""
    progress_folder = folder / PROGRESS
    try:
        if is_occupied(folder) and not progress_folder.is_dir():
            raise UserError(f"{folder} holds files that are not latents: give another --out")
        _check_space(folder, wanted)
        shutil.rmtree(progress_folder, ignore_errors=True)
        progress_folder.mkdir(parents=True)
        np.lib.format.open_memmap(progress_folder / MOMENTS, mode="w+", dtype=np.float16, shape=wanted.moments)
        fsync(progress_folder / MOMENTS)
        os.replace(progress_folder / MOMENTS, folder / MOMENTS)
        fsync(folder)
        write_atomic(progress_folder / HEADER, wanted.model_dump_json(indent=2).encode())
        fsync(progress_folder / HEADER)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error


def _check_space(folder: Path, wanted: CacheHeader) -> None:
    """Raise UserError if the disk has no room for what remains to be written."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    moments = folder / MOMENTS
    written = moments.stat().st_blocks * 512 if moments.exists() else 0
    needed = wanted.count * (wanted.row_bytes + np.dtype(np.int64).itemsize) - written
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(f"{folder} needs {needed:,} bytes and its disk has {free:,} free: give another --out")


def _compare(folder: Path, found: CacheContent, wanted: CacheContent) -> None:
    """Raise UserError if two contents differ in more than the name of the autoencoder."""
    pairs = (
        ("source", _describe(found.source), _describe(wanted.source)),
        ("labels", _short(found.labels_sha256), _short(wanted.labels_sha256)),
        ("number of images", found.count, wanted.count),
        ("classes", found.classes, wanted.classes),
        ("vae", _short(found.vae.sha256), _short(wanted.vae.sha256)),
        ("scale", (found.scale, found.shift), (wanted.scale, wanted.shift)),
        ("image size", found.image, wanted.image),
    )
    differing = [f"{what} ({one}, now {other})" for what, one, other in pairs if one != other]
    if differing:
        raise UserError(f"{folder} was created with another {', '.join(differing)}: undo that, or give another --out")


def _describe(source: SourceRecord) -> str:
    return f"{source.description} {_short(source.fingerprint)}"


def _short(fingerprint: str) -> str:
    return f"{fingerprint[:12]}..."
