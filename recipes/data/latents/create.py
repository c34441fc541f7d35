"""How the writing of a latent cache begins, or goes on: what a folder must hold for that."""

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


def create_or_resume(folder: Path, wanted: CacheHeader, rank: int, patience: float) -> CacheWriter | CacheIndex:
    """Return the draft of a cache in a folder, a new one or the one that is there, or the index of the finished cache.

    Process 0 makes a new one; the others wait until it has.

    Args:
        folder: where the cache is, or will be.
        wanted: what is to be written; a draft that is there keeps its own blocks.
        rank: the number of this process.
        patience: for how many seconds to wait for process 0.

    Raises:
        UserError: the folder holds something else, has no room for the cache, or nothing appears in it.
    """
    since = time.monotonic()
    while (found := _find(folder)) is None:
        if rank == 0:
            _create(folder, wanted)
            continue
        if time.monotonic() - since > patience:
            raise UserError(f"process 0 has begun nothing in {folder} for {patience:.0f} s: start all processes anew")
        time.sleep(POLL_SECONDS)
    _compare(folder, found, wanted)
    if isinstance(found, CacheIndex):
        if rank == 0:
            shutil.rmtree(folder / PROGRESS, ignore_errors=True)  # a crash may have left it
        return found
    if rank == 0:
        _make_room(folder, found)
    return CacheWriter(folder, found)


def _find(folder: Path) -> CacheHeader | CacheIndex | None:
    """Return what is in a folder, if anything is."""
    if (folder / INDEX).exists():
        return read_index(folder)
    try:
        found = CacheHeader.model_validate_json(read_regular(folder / PROGRESS / HEADER))
        size, wanted = (folder / MOMENTS).stat().st_size, moments_offset(folder) + found.count * found.bytes_a_row
    except FileNotFoundError:
        return read_index(folder) if (folder / INDEX).exists() else None  # finished meanwhile, or not begun
    except (OSError, ValueError) as error:
        raise UserError(f"what was begun in {folder} is damaged ({error}); remove {folder}") from error
    if size != wanted:
        raise UserError(f"{folder}: {MOMENTS} has {size} bytes instead of {wanted}; remove {folder}")
    return found


def _create(folder: Path, wanted: CacheHeader) -> None:
    """Make an empty draft; that it is there is written last."""
    aside = folder / PROGRESS
    try:
        if is_occupied(folder) and not aside.is_dir():
            raise UserError(f"{folder} holds other files, and no latents: give another --out")
        _make_room(folder, wanted)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        np.lib.format.open_memmap(aside / MOMENTS, mode="w+", dtype=np.float16, shape=wanted.moments)
        fsync(aside / MOMENTS)
        os.replace(aside / MOMENTS, folder / MOMENTS)
        fsync(folder)
        write_atomic(aside / HEADER, wanted.model_dump_json(indent=2).encode())
        fsync(aside / HEADER)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error


def _make_room(folder: Path, wanted: CacheHeader) -> None:
    """Raise a problem if the disk has no room for what is still to be written."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    moments = folder / MOMENTS
    written = moments.stat().st_blocks * 512 if moments.exists() else 0
    needed = wanted.count * (wanted.bytes_a_row + np.dtype(np.int64).itemsize) - written
    free = shutil.disk_usage(there).free
    if needed > free:
        raise UserError(f"{folder} needs {needed:,} bytes and its disk has {free:,} free: give another --out")


def _compare(folder: Path, found: CacheContent, wanted: CacheContent) -> None:
    """Raise a problem if two contents differ, apart from the name of the autoencoder."""
    pairs = (
        ("source", _name(found.source), _name(wanted.source)),
        ("labels", _short(found.labels_sha256), _short(wanted.labels_sha256)),
        ("number of images", found.count, wanted.count),
        ("classes", found.classes, wanted.classes),
        ("vae", _short(found.vae.sha256), _short(wanted.vae.sha256)),
        ("scale", (found.scale, found.shift), (wanted.scale, wanted.shift)),
        ("image size", found.image, wanted.image),
    )
    differing = [f"{what} ({one}, now {other})" for what, one, other in pairs if one != other]
    if differing:
        raise UserError(f"{folder} was begun with another {', '.join(differing)}: undo that, or give another --out")


def _name(source: SourceRecord) -> str:
    return f"{source.description} {_short(source.fingerprint)}"


def _short(fingerprint: str) -> str:
    return f"{fingerprint[:12]}..."
