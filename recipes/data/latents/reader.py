"""Reads latent caches of `sitkit encode` as data to train on."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...support.digests import digest_of
from ...support.errors import UserError
from ...support.progress import progress
from ..classes import Classes
from ..fingerprint import FileFingerprints
from ..images import NoiseFunction, Split
from .cache import LABELS, MOMENTS, CacheIndex, check_sha256, map_array, read_index
from .vae import decoder


@dataclass(frozen=True, eq=False)
class CachedLatents:
    """Images whose states are sampled from the means and standard deviations of their latents.

    Args:
        moments: (M, 2, 2C, h, w) float16: for each image and its horizontal flip, the means and the standard deviations
            of the latents; may be mapped from a file.
        rows: (N,) int64, the row of each image.
        labels: (N,) int64, the class of each image.
        scale: a state is (latent - shift) * scale.
        shift: see `scale`.
        decode: maps states to pixels.
        sha256: that of the file of the moments, from the index of the cache.
        fingerprints: computes the cache key of the file of the moments.
    """

    moments: np.ndarray
    rows: Tensor
    labels: Tensor
    scale: float
    shift: float
    decode: Callable[[Tensor], Tensor]
    sha256: str = ""
    fingerprints: FileFingerprints = field(default_factory=lambda: FileFingerprints((), ()))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, h, w) of a state."""
        _, _, both, height, width = self.moments.shape
        return both // 2, height, width

    def __len__(self) -> int:
        return len(self.rows)

    def states(self, indices: Tensor, flips: Tensor, noise: NoiseFunction, /) -> Tensor:
        """Sample states, (mean + std * noise - shift) * scale, (B, C, h, w) float32."""
        mean, std = self._moments(indices, flips)
        return (mean + std * noise(self.shape) - self.shift) * self.scale

    def read(self, indices: Tensor, /) -> Tensor:
        """Return the images decoded from the means, (B, 3, H, W) uint8; on a GPU, if there is one.

        These are reconstructions of the autoencoder, not the pixels that were encoded.
        """
        mean, _ = self._moments(indices, torch.zeros_like(indices, dtype=torch.bool))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return self.decode(((mean - self.shift) * self.scale).to(device)).cpu()

    def fingerprint(self, indices: Tensor, sample: int, /) -> str:
        """Return the sha256 of the rows (M,), and of the sha256 of the file of the moments in the index."""
        return digest_of(self.sha256, self.scale, self.shift, self.rows[indices])

    def cache_key(self, indices: Tensor, /) -> str:
        """Return the sha256 of the fingerprint and of the cache key of the file of the moments."""
        return digest_of(
            self.fingerprint(indices, 0), self.fingerprints.cache_key(torch.arange(len(self.fingerprints.files)))
        )

    def _moments(self, indices: Tensor, flips: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and standard deviations, each (B, C, h, w) float32."""
        selected = self.moments[self.rows[indices].numpy(), flips.long().numpy()]
        mean, std = torch.from_numpy(selected).float().chunk(2, dim=1)
        return mean, std


def latents(path: str, heldout: str = "none", vae: str = "auto") -> Split:
    """Return the latents of a cache written by `sitkit encode`. The moments are mapped from their file.

    The sizes and shapes of the files and the sha256 of the labels are compared with the index of the cache. `verify`
    also compares the sha256 of the moments.

    Args:
        path: the folder of the cache.
        heldout: the folder of held-out latents, encoded by the same autoencoder; `none` if there are none.
        vae: the autoencoder that decodes states, a folder or an id. Its encoder must be the one that encoded the
            images; its decoder may differ. `auto` is the autoencoder named in the index, with all its weights equal.

    Raises:
        UserError: a folder holds no complete cache, or the two caches do not match.
    """
    index, training = _open(Path(path), vae)
    if heldout == "none":
        empty = replace(training, rows=training.rows[:0], labels=training.labels[:0])
        return _split(path, index.classes, training, empty)
    other, compared = _open(Path(heldout), vae)
    for what, one, two in (
        ("autoencoders", index.vae.encoder_sha256[:12], other.vae.encoder_sha256[:12]),
        ("classes", index.classes, other.classes),
        ("image shapes", index.image, other.image),
        ("scales", (index.scale, index.shift), (other.scale, other.shift)),
    ):
        if one != two:
            raise UserError(
                f"{path} and {heldout} have different {what}, {one} and {two}: encode both with the same settings"
            )
    return _split(path, index.classes, training, compared)


def _split(path: str, names: tuple[str, ...], training: CachedLatents, compared: CachedLatents) -> Split:
    """Return the split, with the classes that have training images: all images of a class may have been skipped."""
    if not names:
        return Split(training, compared, (), training.decode)
    classes = Classes.from_labels(training.labels, names)
    notes = tuple(f"{path}: {message}" for message in [classes.describe_empty(names)] if message)
    one, other = (replace(part, labels=classes.compact(part.labels, "heldout")) for part in (training, compared))
    return Split(one, other, classes.names, training.decode, notes)


def verify(path: Path) -> CacheIndex:
    """Compare the sha256 of all files of a cache with its index, and return the index.

    Raises:
        UserError: a file is missing or damaged.
    """
    index = read_index(path)
    with progress("verifying", sum(file.bytes for file in index.files.values()), unit="bytes") as advance:
        for name in (LABELS, MOMENTS):
            check_sha256(path, index, name, advance)
    return index


def _open(folder: Path, vae: str) -> tuple[CacheIndex, CachedLatents]:
    index = read_index(folder)
    check_sha256(folder, index, LABELS)
    labels = torch.from_numpy(map_array(folder, LABELS, (index.count,), np.int64).copy())
    moments = map_array(folder, MOMENTS, index.moments, np.float16)
    rows = torch.nonzero(labels >= 0)[:, 0]
    if len(rows) != index.count - len(index.left_out) or labels.max() >= max(len(index.classes), 1):
        raise UserError(f"{folder}: {LABELS} does not match the index; remove {folder} and encode again")
    is_auto = vae == "auto"
    expected = {"encoder_sha256": index.vae.encoder_sha256} | ({"sha256": index.vae.sha256} if is_auto else {})
    source = index.vae.source if is_auto else vae
    decode = decoder(source, scale=index.scale, shift=index.shift, expected=expected)
    fingerprints = FileFingerprints((folder / MOMENTS,), (MOMENTS,))
    sha256 = index.files[MOMENTS].sha256
    return index, CachedLatents(moments, rows, labels[rows], index.scale, index.shift, decode, sha256, fingerprints)
