"""EDM2's latents: a file of means and standard deviations for each image."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ...storage.arrays import read_npy
from ...storage.files import read_regular
from ...storage.npy_header import FLOAT, ArrayError
from ...support.errors import UserError
from ..classes import Classes
from ..file_listing import list_files
from ..fingerprint import FileFingerprints
from ..image_decoding import UnreadableImageError
from ..images import Fingerprints, NoiseFunction, Split
from ..lazy_images import load_batch
from ..splits import split_images

LABELS = "dataset.json"


@dataclass(frozen=True, eq=False)
class EDM2Latents:
    """Means and standard deviations of latents, (2C, H, W) a file; no labels are written as zeros.

    Args:
        files: one an image.
        labels: (N,) int64.
        shape: (C, H, W) of a state.
        scale: what latents are multiplied by.
        decode: from states to pixels.
        origin: the files, by name.
    """

    files: tuple[Path, ...]
    labels: Tensor
    shape: tuple[int, int, int]
    scale: float
    decode: Callable[[Tensor], Tensor]
    origin: Fingerprints

    def __len__(self) -> int:
        return len(self.files)

    def states(self, numbers: Tensor, flips: Tensor, noise: NoiseFunction, /) -> Tensor:
        """Return (mean + std * noise) * scale, (B, C, H, W) float32.

        Raises:
            UserError: some are to be mirrored, or files are damaged; it names them all.
        """
        if flips.any():
            raise UserError("these latents were kept without those of the mirror images: set train.flip = 0")
        mean, std = self._moments(numbers)
        return (mean + std * noise(self.shape)) * self.scale

    def read(self, numbers: Tensor, /) -> Tensor:
        """Return the images as their mean latents are decoded, (B, 3, H', W') uint8."""
        return self.decode(self._moments(numbers)[0] * self.scale)

    def fingerprint(self, numbers: Tensor, sample: int, /) -> str:
        """Return the fingerprint of images (M,)."""
        return self.origin.fingerprint(numbers, sample)

    def cache_key(self, numbers: Tensor, /) -> str:
        """Return the state of images (M,)."""
        return self.origin.cache_key(numbers)

    def _moments(self, numbers: Tensor) -> tuple[Tensor, ...]:
        channels, height, width = self.shape
        kept = (2 * channels, height, width)
        return load_batch(lambda number: _load(self.files[number], kept), numbers, kept).float().chunk(2, dim=1)


def moments(folder: Path, scale: float, decode: Callable[[Tensor], Tensor]) -> tuple[EDM2Latents, bool]:
    """Return all in a folder, in the order of `listing`, and whether they have labels.

    Raises:
        ValueError: there is no such folder, no file or no label of one, or the scale cannot be.
        UserError: the first file is damaged.
    """
    if not scale > 0:
        raise ValueError(f"scale is what latents are multiplied by, above 0, got {scale}")
    names = list_files(folder, (".npy",)).names
    if not names:
        raise ValueError(f"{folder} holds no .npy file")
    shape = tuple(_array(folder / names[0]).shape)
    if len(shape) != 3 or shape[0] % 2:
        raise ValueError(f"{folder / names[0]} should hold means and standard deviations, (2C, H, W), got {shape}")
    labels = _labels(folder, names)
    given = torch.zeros(len(names), dtype=torch.int64) if labels is None else labels
    files = tuple(folder / name for name in names)
    return EDM2Latents(
        files, given, (shape[0] // 2, *shape[1:]), scale, decode, FileFingerprints(files, names)
    ), labels is not None


def _labels(folder: Path, names: Sequence[str]) -> Tensor | None:
    file = folder / LABELS
    try:
        found = json.loads(read_regular(file))["labels"]
        if found is None:
            return None
        known = dict(found)
        labels = [known[name] for name in names]
    except FileNotFoundError:
        raise ValueError(
            f'there is no {file}, {{"labels": [[file, label], ...]}}; in REPA\'s it is in vae-sd'
        ) from None
    except KeyError as error:
        raise ValueError(f"{file} has no {error}") from error
    except OSError as error:
        raise ValueError(f"{file} cannot be opened: {error.strerror}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f'{file} should be {{"labels": [[file, label], ...]}}: {error}') from error
    if not all(type(label) is int and 0 <= label < 2**63 for label in labels):
        raise ValueError(f"{file} should hold whole numbers from 0 up as labels")
    return torch.tensor(labels)


def _load(file: Path, shape: tuple[int, ...]) -> Tensor:
    found = _array(file)
    if found.shape != shape:
        raise UnreadableImageError(f"{file} should be of shape {shape} as the first is, got {found.shape}")
    return torch.from_numpy(found.astype(np.float32))


def _array(file: Path) -> np.ndarray:
    try:
        return read_npy(file, FLOAT)
    except (OSError, ArrayError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UnreadableImageError(f"{file} cannot be read as an array of floating-point numbers: {why}") from error


def edm2(
    path: str,
    vae: str = "stabilityai/sd-vae-ft-mse",
    scale: float = 0.18215,
    heldout: str = "none",
    split: float | Literal["none"] = "none",
) -> Split:
    """Return the latents that EDM2's `dataset_tool.py encode` keeps, and REPA's and its kin's (arXiv 2410.06940).

    The folder holds one `.npy` an image, (2C, H, W), at any depth: the means of its latents, then their standard
    deviations; and `dataset.json`, {"labels": [[file, label], ...]} or {"labels": null}. A state is drawn anew each
    time, (mean + std * noise) * scale. There are no mirror images: `train.flip` must be 0. The labels that occur
    are the classes, named by their numbers.

    EDM2's own tool gives the autoencoder pixels in [0, 1] where REPA's, and `vae.py`, have [-1, 1]: its latents train
    as well, and what is decoded from them has pixels of 127 to 255.

    Args:
        path: the folder; of REPA's, it is `vae-sd`.
        vae: the autoencoder, a folder or a name, as `vae.py` takes it.
        scale: what its latents are multiplied by; 0.18215 is Stable Diffusion's (Rombach et al., arXiv 2112.10752).
        heldout: a folder of latents to compare with.
        split: or else the share of every class to train on, the rest being held out.

    Raises:
        ValueError: a folder or a label is missing, or the scale or the share cannot be.
        UserError: a file is damaged or of another shape than the first; when it is asked for.
    """
    from .vae import decoder

    decode = decoder(vae, scale=scale)
    images, labelled = moments(Path(path), scale, decode)
    compared = None if heldout == "none" else moments(Path(heldout), scale, decode)[0]
    classes = Classes.from_labels(images.labels)
    images = replace(images, labels=classes.compact(images.labels, path))
    if compared is not None:
        compared = replace(compared, labels=classes.compact(compared.labels, heldout))
    told = classes.notes(path) if labelled else ()
    return Split(*split_images(images, compared, split), classes.names if labelled else (), decode, told)
