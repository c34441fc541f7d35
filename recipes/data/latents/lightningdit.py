"""LightningDiT's latents: safetensors in pieces, mapped into memory."""

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
from .vae import Decoder, decoder

STATISTICS = "latents_stats.pt"
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
KEYS = ("latents", "latents_flip", "labels")


@dataclass(frozen=True, eq=False)
class LatentNormalization:
    """States are (z - mean) / std * multiplier, of latents z; mean and std are (C, 1, 1)."""

    mean: Tensor
    std: Tensor
    multiplier: float

    def states(self, z: Tensor) -> Tensor:
        """Return the states of latents, (B, C, H, W)."""
        return (z - self.mean.to(z.device)) / self.std.to(z.device) * self.multiplier

    def latents(self, states: Tensor) -> Tensor:
        """Return the latents of states, (B, C, H, W)."""
        return states / self.multiplier * self.std.to(states.device) + self.mean.to(states.device)


@dataclass(frozen=True, eq=False)
class NormalizedDecoder:
    """From states that were normalised to pixels."""

    normalisation: LatentNormalization
    decoder: Decoder

    def __call__(self, states: Tensor) -> Tensor:
        """Return pixels, (B, 3, H, W) uint8 on the device of the states, of states (B, C, h, w)."""
        return self.decoder(self.normalisation.latents(states.float()))

    def describe(self) -> dict[str, Any]:
        """Return what decodes, for a manifest."""
        scheme = self.normalisation
        numbers = {"mean": scheme.mean.flatten().tolist(), "std": scheme.std.flatten().tolist()}
        return self.decoder.describe() | numbers | {"multiplier": scheme.multiplier}


@dataclass(frozen=True, eq=False)
class LightningDiTLatents:
    """Latents in shards, each with those of the mirror images beside it, both (N, C, H, W)."""

    pieces: tuple[tuple[Tensor, Tensor], ...]
    labels: Tensor
    normalisation: LatentNormalization
    decode: Callable[[Tensor], Tensor]
    origin: FileFingerprints
    """The files of the pieces."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.pieces[0][0].shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.labels)

    def states(self, numbers: Tensor, flips: Tensor, noise: NoiseFunction, /) -> Tensor:
        """Return states, (B, C, H, W) float32; those of the mirror images where `flips` (B,) says so."""
        ends = torch.tensor([len(latents) for latents, _ in self.pieces]).cumsum(0)
        places = torch.searchsorted(ends, numbers, right=True)
        z = torch.empty(len(numbers), *self.shape)
        for row, (number, place, flip) in enumerate(
            zip(numbers.tolist(), places.tolist(), flips.tolist(), strict=True)
        ):
            latents = self.pieces[place][int(flip)]
            z[row] = latents[number - int(ends[place])]  # from the end, for `ends` is where the piece ends
        return self.normalisation.states(z)

    def read(self, numbers: Tensor, /) -> Tensor:
        """Return the images as decoded, (B, 3, H', W') uint8."""
        return self.decode(self.states(numbers, torch.zeros(len(numbers), dtype=torch.bool), torch.zeros))

    def fingerprint(self, numbers: Tensor, sample: int, /) -> str:
        """Return the sha256 of the states of some images (M,), spread evenly, of their mirror images', and of M."""
        some = numbers[:: max(1, -(-len(numbers) // sample))]
        flips = torch.tensor([False, True]).expand(len(some), 2).flatten()
        return digest_of(len(numbers), self.states(some.repeat_interleave(2), flips, torch.zeros))

    def cache_key(self, numbers: Tensor, /) -> str:
        """Return the sha256 of which images (M,) these are, and of the state of all files."""
        return digest_of(numbers, self.normalisation.mean, self.normalisation.std, self.origin.cache_key(self._files))

    @property
    def _files(self) -> Tensor:
        return torch.arange(len(self.pieces))


def normalisation(folder: Path, multiplier: float) -> LatentNormalization:
    """Return the normalisation that a folder's `latents_stats.pt` tells of; no code in it is run.

    Raises:
        ValueError: there is no such file, or it holds something else.
    """
    file = folder / STATISTICS
    try:
        found = torch.load(io.BytesIO(read_regular(file)), map_location="cpu", weights_only=True)
        mean, std = (found[key].float().reshape(-1, 1, 1) for key in ("mean", "std"))
    except FileNotFoundError:
        raise ValueError(
            f"there is no {file}, the mean and std of each channel: LightningDiT's tools make it"
        ) from None
    except OSError as error:
        raise ValueError(f"{file} cannot be opened: {error.strerror}") from error
    except Exception as error:  # torch.load raises what zip files, pickles and tensors do
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{file} should hold the tensors mean and std: {reason}") from error
    finite = mean.isfinite().all() and std.isfinite().all()
    if mean.shape != std.shape or not finite or not (std > 0).all() or not multiplier > 0:
        raise ValueError(f"{file} should hold as many std as mean, all above 0, and multiplier {multiplier} be above 0")
    return LatentNormalization(mean, std, multiplier)


def shards(folder: Path, normalisation: LatentNormalization, decode: Callable[[Tensor], Tensor]) -> LightningDiTLatents:
    """Return the latents of all safetensors in a folder, by name.

    Raises:
        ValueError: there is no such folder or file, or one lacks a key or is of another shape.
    """
    names = [name for name in list_files(folder, (".safetensors",)).names if "/" not in name]
    if not names:
        raise ValueError(f"{folder} has no .safetensors files in it")
    files = [folder / name for name in names]
    pieces: list[tuple[Tensor, Tensor]] = []
    labels: list[Tensor] = []
    for file in files:
        try:
            open_regular(file).close()
            content = load_file(file)
            latents, mirrored, label = (content[key] for key in KEYS)
        except KeyError as error:
            raise ValueError(f"{file} has no {error}; latents have {', '.join(KEYS)}") from error
        except OSError as error:
            raise ValueError(f"{file} cannot be opened: {error.strerror}") from error
        except SafetensorError as error:
            raise ValueError(f"{file} cannot be read as safetensors: {error}") from error
        wanted = pieces[0][0].shape[1:] if pieces else (len(normalisation.mean), *latents.shape[2:])
        if latents.ndim != 4 or latents.shape[1:] != wanted or mirrored.shape != latents.shape:
            shapes = f"{tuple(latents.shape)} and {tuple(mirrored.shape)}"
            raise ValueError(
                f"{file}: latents and latents_flip should both be (N, {str(tuple(wanted))[1:]}, got {shapes}"
            )
        if not latents.is_floating_point() or mirrored.dtype != latents.dtype:
            raise ValueError(f"{file}: latents are {latents.dtype} and {mirrored.dtype}, not floating-point numbers")
        if label.shape != latents.shape[:1] or label.dtype not in WHOLE or (label < 0).any():
            raise ValueError(f"{file}: labels should be {len(latents)} whole numbers from 0 up")
        pieces.append((latents, mirrored))
        labels.append(label.long())
    if not sum(map(len, labels)):
        raise ValueError(f"{folder} holds no latents")
    return LightningDiTLatents(
        tuple(pieces), torch.cat(labels), normalisation, decode, FileFingerprints(files, [file.name for file in files])
    )


def lightningdit(
    path: str,
    vae: str,
    multiplier: float = 1.0,
    heldout: str = "none",
    split: float | Literal["none"] = "none",
) -> Split:
    """Return the latents z that LightningDiT and its kin keep as safetensors (Yao et al., arXiv 2501.01423).

    The folder holds `*.safetensors`, in the order of their names, each with `latents` and `latents_flip`, those of the
    mirror images, (N, C, H, W), and `labels` (N,); and `latents_stats.pt`, mean and standard deviation of each channel.
    A state is (z - mean) / std * multiplier. Files are mapped into memory. The labels that occur in `path` are the
    classes, named by their numbers.

    Args:
        path: the folder.
        vae: the autoencoder that decodes z, a folder or a name, as `vae.py` takes it.
        multiplier: as `latent_multiplier` of the configuration that a network was trained with.
        heldout: a folder of latents to compare with; they are normalised as those of `path`.
        split: or else the share of every class to train on, the rest being held out.

    Raises:
        ValueError: a folder, a file or a key is missing or of another shape, or the share cannot be.
    """
    scheme = normalisation(Path(path), multiplier)
    decode = NormalizedDecoder(scheme, decoder(vae, scale=1.0))
    images = shards(Path(path), scheme, decode)
    compared = None if heldout == "none" else shards(Path(heldout), scheme, decode)
    classes = Classes.from_labels(images.labels)
    images = replace(images, labels=classes.compact(images.labels, path))
    if compared is not None:
        compared = replace(compared, labels=classes.compact(compared.labels, heldout))
    return Split(*split_images(images, compared, split), classes.names, decode, classes.notes(path))
