"""Autoencoders between pixels and latents: AutoencoderKL of diffusers, which is imported on use.

The latents of an image are normally distributed, with a mean and a standard deviation for each element (Rombach et al.,
2022).
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ...support.errors import UserError
from ...support.torch_settings import float32_math
from ..images import to_pixels, to_states

VAE: TypeAlias = Any
"""diffusers' AutoencoderKL."""

DEFAULT_VAE = "stabilityai/sd-vae-ft-ema"
"""The autoencoder of SiT and DiT, with a fine-tuned decoder."""

ENCODER = ("encoder.", "quant_conv.")
"""Prefixes of the names of the encoder's weights; the others belong to the decoder."""


def load(source: str = DEFAULT_VAE) -> VAE:
    """Load an autoencoder for inference, in float32 on the CPU.

    Args:
        source: a folder written by `save_pretrained`, or an id on the Hugging Face hub; only safetensors are read,
            never a pickle.

    Raises:
        UserError: it does not exist, is damaged or incomplete, or diffusers is not installed.
    """
    if not Path(source).is_dir() and (source.count("/") != 1 or source.startswith((".", "/", "~"))):
        raise UserError(f"vae '{source}' is neither a folder nor the id of a repository, such as {DEFAULT_VAE}")
    try:
        kind = import_module("diffusers").AutoencoderKL
    except ImportError as error:
        raise UserError(f"latents need diffusers ({error}): pip install 'sitkit[vae]'") from error
    try:
        with _quiet():
            vae, problems = kind.from_pretrained(
                source,
                use_safetensors=True,
                torch_dtype=torch.float32,
                low_cpu_mem_usage=False,  # True requires accelerate
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"vae '{source}' cannot be loaded as safetensors of an AutoencoderKL: {reason}") from error
    for what, names in problems.items():  # diffusers only warns, and initialises missing weights randomly
        if names:
            raise UserError(
                f"vae '{source}' is not a complete AutoencoderKL: {what.replace('_', ' ')} {', '.join(names)}"
            )
    if vae.config.latents_mean is not None or vae.config.latents_std is not None:
        raise UserError(f"vae '{source}' normalizes its channels separately, which is not supported: choose another")
    return vae.requires_grad_(False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the log of diffusers, whose errors are raised as well."""
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def fingerprint(vae: VAE, prefixes: tuple[str, ...] = ("",)) -> str:
    """Return the sha256 of the weights whose names have one of the prefixes, hexadecimal.

    It covers name, dtype, shape and bytes of each weight, sorted by name, and does not depend on the file format.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(vae.state_dict().items()):
        if name.startswith(prefixes):
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
            digest.update(weight.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def scaling(vae: VAE) -> tuple[float, float]:
    """Return scale and shift: a state is (latent - shift) * scale."""
    return float(vae.config.scaling_factor), float(vae.config.shift_factor or 0.0)


def latent_shape(vae: VAE, image: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the shape (C, h, w) of the latents of images of the shape (1 or 3, H, W).

    Raises:
        UserError: the autoencoder does not accept such images.
    """
    channels, height, width = image
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    if channels not in (1, 3) or height % factor or width % factor:
        raise UserError(
            f"the autoencoder takes images of 1 or 3 channels whose sides are multiples of {factor}, "
            f"got {channels} channels of {height}x{width}"
        )
    return int(vae.config.latent_channels), height // factor, width // factor


def encode(vae: VAE, pixels: Tensor) -> Tensor:
    """Return means and standard deviations of the latents, (B, 2C, h, w) float32, on the device of the autoencoder.

    They are not scaled. AutoencoderKL clamps the log variance to [-30, 20]: standard deviations lie between 3e-7 and
    22,027.

    Args:
        vae: the autoencoder.
        pixels: (B, 3, H, W) uint8, or (B, 1, H, W): grey becomes three equal channels.
    """
    states = to_states(pixels.to(next(vae.parameters()).device))
    with torch.no_grad(), float32_math("ieee"):
        posterior = vae.encode(states.expand(-1, 3, -1, -1)).latent_dist
    return torch.cat([posterior.mean, posterior.std], dim=1)


@dataclass(eq=False)
class Decoder:
    """Decodes states to pixels. Created by `decoder`, which describes the fields."""

    source: str
    scale: float
    shift: float = 0.0
    expected: Mapping[str, str] = field(default_factory=dict)
    batch: int = 16
    _vae: VAE = field(default=None, repr=False)

    def __call__(self, states: Tensor) -> Tensor:
        """Decode states (B, C, h, w) to pixels, (B, 3, H, W) uint8 on the device of the states.

        Raises:
            UserError: on the first call, if the autoencoder cannot be loaded, or is not the expected one.
        """
        if self._vae is None:
            self._vae = self._load()
        vae = self._vae.to(states.device)
        with torch.no_grad(), float32_math("ieee"):
            parts = torch.split(states.float(), self.batch)
            return torch.cat([to_pixels(vae.decode(part / self.scale + self.shift).sample) for part in parts])

    def describe(self) -> dict[str, Any]:
        """Return the record of the autoencoder for a manifest: name, sha256 of all weights, scale and shift.

        Raises:
            UserError: the autoencoder cannot be loaded, or is not the expected one.
        """
        if self._vae is None:
            self._vae = self._load()
        return {"vae": self.source, "vae_sha256": fingerprint(self._vae), "scale": self.scale, "shift": self.shift}

    def _load(self) -> VAE:
        vae = load(self.source)
        for what, prefixes in (("sha256", ("",)), ("encoder_sha256", ENCODER)):
            if self.expected.get(what, found := fingerprint(vae, prefixes)) != found:
                raise UserError(
                    f"vae '{self.source}' has other weights than the autoencoder of the latents: its {what} is "
                    f"{found[:12]}... instead of {self.expected[what][:12]}...; name the autoencoder that encoded them"
                )
        return vae


def decoder(
    source: str, *, scale: float, shift: float = 0.0, expected: Mapping[str, str] | None = None, batch: int = 16
) -> Decoder:
    """Return the function that decodes states to pixels. It loads the autoencoder when it is first called.

    Args:
        source: the autoencoder, as `load` takes it.
        scale: a state is (latent - shift) * scale.
        shift: see `scale`.
        expected: fingerprints that the autoencoder must have: `sha256` of all its weights and `encoder_sha256` of those
            of the encoder.
        batch: how many images are decoded at once.
    """
    return Decoder(source, scale, shift, expected or {}, batch)
