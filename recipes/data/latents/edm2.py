"""Reads latents in the format of EDM2: one file of means and standard deviations for each image."""

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
from . import vae as autoencoders

LABELS = "dataset.json"


@dataclass(frozen=True, eq=False)
class EDM2Latents:
    """Images whose states are sampled from means and standard deviations of latents, (2C, H, W) in each file.

    Args:
        files: one for each image.
        labels: (N,) int64; zeros if there are no labels.
        shape: (C, H, W) of a state.
        scale: the factor of the latents.
        decode: maps states to pixels.
        fingerprints: computes the fingerprints and cache keys of the files.
    """

    files: tuple[Path, ...]
    labels: Tensor
    shape: tuple[int, int, int]
    scale: float
    decode: Callable[[Tensor], Tensor]
    fingerprints: Fingerprints

    def __len__(self) -> int:
        return len(self.files)

    def states(self, indices: Tensor, flips: Tensor, noise: NoiseFunction, /) -> Tensor:
        """Sample states, (mean + std * noise) * scale, (B, C, H, W) float32.

        Raises:
            UserError: flipped images are requested, or files are damaged; the message names all of them.
        """
        if flips.any():
            raise UserError("these latents do not include those of flipped images: set train.flip = 0")
        mean, std = self._moments(indices)
        return (mean + std * noise(self.shape)) * self.scale

    def read(self, indices: Tensor, /) -> Tensor:
        """Return the images decoded from the means, (B, 3, H', W') uint8."""
        return self.decode(self._moments(indices)[0] * self.scale)

    def fingerprint(self, indices: Tensor, sample: int, /) -> str:
        """Return the fingerprint of images (M,)."""
        return self.fingerprints.fingerprint(indices, sample)

    def cache_key(self, indices: Tensor, /) -> str:
        """Return the cache key of images (M,)."""
        return self.fingerprints.cache_key(indices)

    def _moments(self, indices: Tensor) -> tuple[Tensor, ...]:
        channels, height, width = self.shape
        shape = (2 * channels, height, width)
        return load_batch(lambda index: _load(self.files[index], shape), indices, shape).float().chunk(2, dim=1)


def read_folder(folder: Path, scale: float, decode: Callable[[Tensor], Tensor]) -> tuple[EDM2Latents, bool]:
    """Return the latents in a folder, in the order of `list_files`, and whether they have labels.

    Raises:
        ValueError: the folder, all files or the label of a file are missing, or the scale is invalid.
        UserError: the first file is damaged.
    """
    if not scale > 0:
        raise ValueError(f"scale is the factor of the latents and must be above 0, got {scale}")
    names = list_files(folder, (".npy",)).names
    if not names:
        raise ValueError(f"{folder} holds no .npy files")
    shape = tuple(_array(folder / names[0]).shape)
    if len(shape) != 3 or shape[0] % 2:
        raise ValueError(f"{folder / names[0]} must hold means and standard deviations, (2C, H, W), got {shape}")
    labels = _labels(folder, names)
    filled = torch.zeros(len(names), dtype=torch.int64) if labels is None else labels
    files = tuple(folder / name for name in names)
    return EDM2Latents(
        files, filled, (shape[0] // 2, *shape[1:]), scale, decode, FileFingerprints(files, names)
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
            f'there is no {file}, {{"labels": [[file, label], ...]}}; REPA writes it to the folder vae-sd'
        ) from None
    except KeyError as error:
        raise ValueError(f"{file} has no {error}") from error
    except OSError as error:
        raise ValueError(f"{file} cannot be opened: {error.strerror}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f'{file} must be {{"labels": [[file, label], ...]}}: {error}') from error
    if not all(type(label) is int and 0 <= label < 2**63 for label in labels):
        raise ValueError(f"{file} must hold integers from 0 up as labels")
    return torch.tensor(labels)


def _load(file: Path, shape: tuple[int, ...]) -> Tensor:
    found = _array(file)
    if found.shape != shape:
        raise UnreadableImageError(f"{file} must have the shape {shape} of the first file, got {found.shape}")
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
    """Return latents written by `dataset_tool.py encode` of EDM2, of REPA and of derived code (arXiv 2410.06940).

    The folder holds one `.npy` file for each image, (2C, H, W), at any depth: the means of its latents, then their
    standard deviations; and `dataset.json`, {"labels": [[file, label], ...]} or {"labels": null}. States are sampled
    anew each time, (mean + std * noise) * scale. The latents of flipped images are not stored: `train.flip` must be 0.
    The labels that occur are the classes, named by their labels.

    EDM2's tool passes pixels in [0, 1] to the autoencoder, where REPA's and `vae.py` pass pixels in [-1, 1]. Training
    works on its latents as well, but pixels decoded from them lie between 127 and 255.

    Args:
        path: the folder; REPA names it `vae-sd`.
        vae: the autoencoder, a folder or an id, as `vae.py` takes it.
        scale: the factor of the latents; 0.18215 is that of Stable Diffusion (Rombach et al., arXiv 2112.10752).
        heldout: a folder of held-out latents.
        split: instead of `heldout`, the fraction of every class to train on, the rest being held out.

    Raises:
        ValueError: a folder or a label is missing, or the scale or the fraction is invalid.
        UserError: a file is damaged or of another shape than the first; raised on access.
    """
    decode = autoencoders.decoder(vae, scale=scale)
    images, labelled = read_folder(Path(path), scale, decode)
    compared = None if heldout == "none" else read_folder(Path(heldout), scale, decode)[0]
    classes = Classes.from_labels(images.labels)
    images = replace(images, labels=classes.compact(images.labels, path))
    if compared is not None:
        compared = replace(compared, labels=classes.compact(compared.labels, heldout))
    notes = classes.notes(path) if labelled else ()
    return Split(*split_images(images, compared, split), classes.names if labelled else (), decode, notes)
