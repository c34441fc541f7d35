"""Implements `sitkit encode`: reads the source that the command names and encodes it into a folder."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from ..data.classes import check_labels
from ..data.images import Images, InMemory, Split
from ..data.latents import vae as autoencoders
from ..data.latents.cache import SourceRecord
from ..data.latents.encode import encode
from ..experiment import slots
from ..storage.work_partition import WorkPartition
from ..support.errors import UserError
from ..support.progress import print_once

HELDOUT = "heldout"
"""The name of the folder inside the cache for held-out images."""


def encode_source(
    source: str,
    out: Path,
    *,
    size: int,
    vae: str = autoencoders.DEFAULT_VAE,
    batch: int = 32,
    device: torch.device,
    unreadable: Literal["stop", "skip"] = "stop",
    say: Callable[[str], None],
) -> None:
    """Encode the images of a source, or resume encoding. Held-out images go into the folder `heldout` in `out`.

    Under torchrun, or with RANK and WORLD_SIZE set, each process encodes a part of the images. On GPUs, the process
    with LOCAL_RANK k uses GPU k of its machine.

    Args:
        source: a folder of images, or data of a recipe: a kind, such as `digits`, or the table in TOML, such as
            `{kind = "mnist5k", split = 0.9}`.
        out: the folder of the cache.
        size: the side of the images, in pixels.
        vae: the autoencoder, a folder or an id.
        batch: how many images are encoded at once.
        device: the device to encode on.
        unreadable: whether images that cannot be read are an error or are skipped (`encode`).
        say: takes lines for the user; called in process 0 only.

    Raises:
        UserError: the source does not exist, its images have another size, or they cannot be encoded.
    """
    partition = WorkPartition.from_environment()
    split, record = _open(source, size)
    for line in split.notes:
        print_once(line)
    model = autoencoders.load(vae).to(partition.device(device))
    parts = [(split.training, out)] + [(split.heldout, out / HELDOUT)] * (len(split.heldout) > 0)
    for images, folder in parts:
        encode(
            images,
            split.classes,
            folder,
            source=SourceRecord(description=record.description, fingerprint=_fingerprint(record.fingerprint, images)),
            vae=model,
            vae_source=vae,
            batch=batch,
            unreadable=unreadable,
            rank=partition.rank,
            world_size=partition.world_size,
            say=say if partition.is_main else lambda line: None,
        )


def _open(source: str, size: int) -> tuple[Split, SourceRecord]:
    """Return the data of a source, and the record that describes it."""
    if Path(source).is_dir():
        from ..data.file_listing import list_files
        from ..data.folder import folder
        from ..data.image_decoding import image_suffixes

        try:
            names = list_files(Path(source), image_suffixes()).names
            return folder(source, size), SourceRecord(description=source, fingerprint="\n".join(names))
        except ValueError as error:
            raise UserError(f"{source}: {error}") from error
    try:
        data = slots.DATA.read(source)
    except UserError as problem:
        raise UserError(f"{source} is neither a folder nor a data set: {problem}") from None
    split = data.build()
    if not isinstance(split, Split):
        raise UserError(f"data = {data.kind} returns a {type(split).__name__}, not a Split")
    split = check_labels(split, f"data = {data.kind}") if ":" in data.kind else split
    if split.training.shape[1:] != (size, size):
        height, width = split.training.shape[1:]
        raise UserError(f"the images of {data.kind} are {height}x{width}, and --size is {size}")
    fields = data.fields.model_dump_json()
    return split, SourceRecord(description=f"{data.kind} {fields}", fingerprint=f"{data.kind} {fields}")


def _fingerprint(text: str, images: Images) -> str:
    """Return the SHA-256 digest of a text, of labels, and of pixels that are in memory.

    Files are identified by names and labels, and are not opened: a damaged one may be replaced meanwhile.
    """
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape"))
    digest.update(images.labels.numpy().tobytes())
    if isinstance(images, InMemory):
        digest.update(images.pixels.contiguous().numpy().data)
    return digest.hexdigest()
