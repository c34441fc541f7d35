"""Reads latents in the format of LightningDiT: safetensors shards, mapped into memory."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...storage.files import open_regular, read_regular
from ...support.digests import digest_of
from ..classes import Classes
from ..file_listing import list_files
from ..fingerprint import FileFingerprints
from ..images import NoiseFunction, Split
from ..splits import split_images
from . import vae as autoencoders
from .vae import Decoder

STATISTICS = "latents_stats.pt"
INTEGER_DTYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
KEYS = ("latents", "latents_flip", "labels")


@dataclass(frozen=True, eq=False)
class LatentNormalization:
    """Normalization of latents z by channel: a state is (z - mean) / std * multiplier; mean and std are (C, 1, 1)."""

    mean: Tensor
    std: Tensor
    multiplier: float

    def states(self, z: Tensor) -> Tensor:
        """Normalize latents to states, (B, C, H, W)."""
        return (z - self.mean.to(z.device)) / self.std.to(z.device) * self.multiplier

    def latents(self, states: Tensor) -> Tensor:
        """Convert states back to latents, (B, C, H, W)."""
        return states / self.multiplier * self.std.to(states.device) + self.mean.to(states.device)


@dataclass(frozen=True, eq=False)
class NormalizedDecoder:
    """Decodes normalized states to pixels."""

    normalization: LatentNormalization
    decoder: Decoder

    def __call__(self, states: Tensor) -> Tensor:
        """Return pixels, (B, 3, H, W) uint8 on the device of the states, of states (B, C, h, w)."""
        return self.decoder(self.normalization.latents(states.float()))

    def describe(self) -> dict[str, Any]:
        """Return the record of the autoencoder and the normalization for a manifest."""
        by_channel = {key: getattr(self.normalization, key).flatten().tolist() for key in ("mean", "std")}
        return self.decoder.describe() | by_channel | {"multiplier": self.normalization.multiplier}


@dataclass(frozen=True, eq=False)
class LightningDiTLatents:
    """Latents in shards: a pair of tensors (N, C, H, W) in each, of the images and of their horizontal flips."""

    shards: tuple[tuple[Tensor, Tensor], ...]
    labels: Tensor
    normalization: LatentNormalization
    decode: Callable[[Tensor], Tensor]
    fingerprints: FileFingerprints
    """Computes the cache keys of the files of the shards."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of a state."""
        channels, height, width = self.shards[0][0].shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.labels)

    def states(self, indices: Tensor, flips: Tensor, noise: NoiseFunction, /) -> Tensor:
        """Return states, (B, C, H, W) float32, of the flipped images where `flips` (B,) is True."""
        ends = torch.tensor([len(latents) for latents, _ in self.shards]).cumsum(0)
        places = torch.searchsorted(ends, indices, right=True)
        z = torch.empty(len(indices), *self.shape)
        for row, (index, shard, flip) in enumerate(zip(indices.tolist(), places.tolist(), flips.tolist(), strict=True)):
            latents = self.shards[shard][int(flip)]
            z[row] = latents[index - int(ends[shard])]  # a negative index, counted from the end of the shard
        return self.normalization.states(z)

    def read(self, indices: Tensor, /) -> Tensor:
        """Return the decoded images, (B, 3, H', W') uint8."""
        return self.decode(self.states(indices, torch.zeros(len(indices), dtype=torch.bool), torch.zeros))

    def fingerprint(self, indices: Tensor, sample: int, /) -> str:
        """Return the sha256 of M and of the states of at most `sample` of M images, evenly spaced, and their flips."""
        some = indices[:: max(1, -(-len(indices) // sample))]
        flips = torch.tensor([False, True]).expand(len(some), 2).flatten()
        return digest_of(len(indices), self.states(some.repeat_interleave(2), flips, torch.zeros))

    def cache_key(self, indices: Tensor, /) -> str:
        """Return the sha256 of the indices (M,), of the normalization, and of the cache key of all files."""
        return digest_of(
            indices, self.normalization.mean, self.normalization.std, self.fingerprints.cache_key(self._files)
        )

    @property
    def _files(self) -> Tensor:
        return torch.arange(len(self.shards))


def read_normalization(folder: Path, multiplier: float) -> LatentNormalization:
    """Read the normalization from `latents_stats.pt` in a folder, without running code in that file.

    Raises:
        ValueError: there is no such file, or it holds something else.
    """
    file = folder / STATISTICS
    try:
        found = torch.load(io.BytesIO(read_regular(file)), map_location="cpu", weights_only=True)
        mean, std = (found[key].float().reshape(-1, 1, 1) for key in ("mean", "std"))
    except FileNotFoundError:
        raise ValueError(
            f"there is no {file}, the mean and std of each channel: LightningDiT's tools create it"
        ) from None
    except OSError as error:
        raise ValueError(f"{file} cannot be opened: {error.strerror}") from error
    except Exception as error:  # torch.load raises what zip files, pickles and tensors do
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{file} must hold the tensors mean and std: {reason}") from error
    finite = mean.isfinite().all() and std.isfinite().all()
    if mean.shape != std.shape or not finite or not (std > 0).all() or not multiplier > 0:
        raise ValueError(f"{file} must hold a std above 0 for each mean, and multiplier ({multiplier}) must be above 0")
    return LatentNormalization(mean, std, multiplier)


def read_shards(
    folder: Path, normalization: LatentNormalization, decode: Callable[[Tensor], Tensor]
) -> LightningDiTLatents:
    """Return the latents of all safetensors files in a folder, sorted by name.

    Raises:
        ValueError: the folder or all files are missing, or a file lacks a key or is of another shape.
    """
    names = [name for name in list_files(folder, (".safetensors",)).names if "/" not in name]
    if not names:
        raise ValueError(f"{folder} holds no .safetensors files")
    files = [folder / name for name in names]
    pairs: list[tuple[Tensor, Tensor]] = []
    labels: list[Tensor] = []
    for file in files:
        try:
            open_regular(file).close()
            content = load_file(file)
            latents, flipped, label = (content[key] for key in KEYS)
        except KeyError as error:
            raise ValueError(f"{file} has no {error}; latents have {', '.join(KEYS)}") from error
        except OSError as error:
            raise ValueError(f"{file} cannot be opened: {error.strerror}") from error
        except SafetensorError as error:
            raise ValueError(f"{file} cannot be read as safetensors: {error}") from error
        wanted = pairs[0][0].shape[1:] if pairs else (len(normalization.mean), *latents.shape[2:])
        if latents.ndim != 4 or latents.shape[1:] != wanted or flipped.shape != latents.shape:
            shapes = f"{tuple(latents.shape)} and {tuple(flipped.shape)}"
            raise ValueError(
                f"{file}: latents and latents_flip must both be (N, {str(tuple(wanted))[1:]}, got {shapes}"
            )
        if not latents.is_floating_point() or flipped.dtype != latents.dtype:
            raise ValueError(f"{file}: latents are {latents.dtype} and {flipped.dtype}, not floating-point indices")
        if label.shape != latents.shape[:1] or label.dtype not in INTEGER_DTYPES or (label < 0).any():
            raise ValueError(f"{file}: labels must be {len(latents)} integers from 0 up")
        pairs.append((latents, flipped))
        labels.append(label.long())
    if not sum(map(len, labels)):
        raise ValueError(f"{folder} holds no latents")
    return LightningDiTLatents(
        tuple(pairs), torch.cat(labels), normalization, decode, FileFingerprints(files, [file.name for file in files])
    )


def lightningdit(
    path: str,
    vae: str,
    multiplier: float = 1.0,
    heldout: str = "none",
    split: float | Literal["none"] = "none",
) -> Split:
    """Return the latents z that LightningDiT and derived code store as safetensors (Yao et al., arXiv 2501.01423).

    The folder holds `*.safetensors`, in the order of their names, each with `latents` (N, C, H, W), `latents_flip` of
    the horizontally flipped images, and `labels` (N,); and `latents_stats.pt`, the mean and standard deviation of each
    channel. A state is (z - mean) / std * multiplier. Files are mapped into memory. The labels that occur in `path` are
    the classes, named by their labels.

    Args:
        path: the folder.
        vae: the autoencoder that decodes z, a folder or an id, as `vae.py` takes it.
        multiplier: `latent_multiplier` of the configuration that a network was trained with.
        heldout: a folder of held-out latents, which are normalized like those of `path`.
        split: instead of `heldout`, the fraction of every class to train on, the rest being held out.

    Raises:
        ValueError: a folder, a file or a key is missing or of another shape, or the fraction is invalid.
    """
    normalization = read_normalization(Path(path), multiplier)
    decode = NormalizedDecoder(normalization, autoencoders.decoder(vae, scale=1.0))
    images = read_shards(Path(path), normalization, decode)
    compared = None if heldout == "none" else read_shards(Path(heldout), normalization, decode)
    classes = Classes.from_labels(images.labels)
    images = replace(images, labels=classes.compact(images.labels, path))
    if compared is not None:
        compared = replace(compared, labels=classes.compact(compared.labels, heldout))
    return Split(*split_images(images, compared, split), classes.names, decode, classes.notes(path))
