"""Latents that `sitkit encode` has written down, as data to train on."""

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
    """Images that are known by the laws of their latents.

    Args:
        moments: (M, 2, 2C, h, w) float16: of each image and of its mirror image, the means and the standard deviations
            of the latents; may be mapped from a file.
        rows: (N,) int64, the row of each image.
        labels: (N,) int64, its class.
        scale: what latents are multiplied by, after `shift` has been taken off.
        shift: see `scale`.
        decode: from states to pixels.
    """

    moments: np.ndarray
    rows: Tensor
    labels: Tensor
    scale: float
    shift: float
    decode: Callable[[Tensor], Tensor]
    sha256: str = ""
    """Of the file of the moments, as the index of their cache has it."""
    origin: FileFingerprints = field(default_factory=lambda: FileFingerprints((), ()))
    """The file of the moments."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w)."""
        _, _, both, height, width = self.moments.shape
        return both // 2, height, width

    def __len__(self) -> int:
        return len(self.rows)

    def states(self, numbers: Tensor, flips: Tensor, noise: NoiseFunction, /) -> Tensor:
        """Return latents drawn by their laws and scaled, (mean + std * noise - shift) * scale, (B, C, h, w) float32."""
        mean, std = self._laws(numbers, flips)
        return (mean + std * noise(self.shape) - self.shift) * self.scale

    def read(self, numbers: Tensor, /) -> Tensor:
        """Return the images that the means decode to, (B, 3, H, W) uint8; on a GPU, where there is one.

        These are the autoencoder's reconstructions, not the pixels that were encoded.
        """
        mean, _ = self._laws(numbers, torch.zeros_like(numbers, dtype=torch.bool))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return self.decode(((mean - self.shift) * self.scale).to(device)).cpu()

    def fingerprint(self, numbers: Tensor, sample: int, /) -> str:
        """Return the sha256 of that of the moments' file, which the index of the cache tells, and of rows (M,)."""
        return digest_of(self.sha256, self.scale, self.shift, self.rows[numbers])

    def cache_key(self, numbers: Tensor, /) -> str:
        """Return the fingerprint, and with it when the file of the moments was written."""
        return digest_of(self.fingerprint(numbers, 0), self.origin.cache_key(torch.arange(len(self.origin.files))))

    def _laws(self, numbers: Tensor, flips: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and standard deviations, each (B, C, h, w) float32."""
        chosen = self.moments[self.rows[numbers].numpy(), flips.long().numpy()]
        mean, std = torch.from_numpy(chosen).float().chunk(2, dim=1)
        return mean, std


def latents(path: str, heldout: str = "none", vae: str = "auto") -> Split:
    """Return the latents in a folder that `sitkit encode` has written; the moments stay in their file.

    On opening, sizes and shapes of the files are compared with what their index says, and the labels' sha256: `verify`
    compares that of the moments, too.

    Args:
        path: the folder.
        heldout: the folder of those to compare with, encoded by the same autoencoder; with `none` there are none.
        vae: the autoencoder that makes pixels of states, a folder or an id. It must have the encoder that encoded; its
            decoder may be another. `auto` is the one that encoded, by the name that it then had, and wholly that one.

    Raises:
        UserError: a folder holds no whole cache, or the two do not go together.
    """
    index, training = _open(Path(path), vae)
    if heldout == "none":
        nothing = replace(training, rows=training.rows[:0], labels=training.labels[:0])
        return _split(path, index.classes, training, nothing)
    other, compared = _open(Path(heldout), vae)
    for what, one, two in (
        ("autoencoders", index.vae.encoder_sha256[:12], other.vae.encoder_sha256[:12]),
        ("classes", index.classes, other.classes),
        ("image shapes", index.image, other.image),
        ("scales", (index.scale, index.shift), (other.scale, other.shift)),
    ):
        if one != two:
            raise UserError(f"{path} and {heldout} are of different {what}, {one} and {two}: encode both alike")
    return _split(path, index.classes, training, compared)


def _split(path: str, names: tuple[str, ...], training: CachedLatents, compared: CachedLatents) -> Split:
    """Return latents of the classes that have any: all images of a class may have been left out."""
    if not names:
        return Split(training, compared, (), training.decode)
    classes = Classes.from_labels(training.labels, names)
    told = tuple(f"{path}: {left_out}" for left_out in [classes.describe_empty(names)] if left_out)
    one, other = (replace(part, labels=classes.compact(part.labels, "heldout")) for part in (training, compared))
    return Split(one, other, classes.names, training.decode, told)


def verify(path: Path) -> CacheIndex:
    """Return what a cache says of itself, after the sha256 of all its files have been compared with it.

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
        raise UserError(f"{folder}: {LABELS} does not go with its index; remove {folder} and encode anew")
    same = vae == "auto"
    expected = {"encoder_sha256": index.vae.encoder_sha256} | ({"sha256": index.vae.sha256} if same else {})
    source = index.vae.source if same else vae
    decode = decoder(source, scale=index.scale, shift=index.shift, expected=expected)
    origin = FileFingerprints((folder / MOMENTS,), (MOMENTS,))
    sha256 = index.files[MOMENTS].sha256
    return index, CachedLatents(moments, rows, labels[rows], index.scale, index.shift, decode, sha256, origin)
