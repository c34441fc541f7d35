"""Autoencoders between pixels and latents: diffusers' AutoencoderKL, imported on use, for that takes seconds.

An image's latents are random: normal, with a mean and a standard deviation for each number (Rombach et al., 2022).
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
"""The autoencoder of SiT and DiT, with its decoder tuned further."""

ENCODER = ("encoder.", "quant_conv.")
"""How the names of those weights begin that make latents; the others make pixels of them."""


def load(source: str = DEFAULT_VAE) -> VAE:
    """Return an autoencoder in float32, on the CPU, ready to use and not to train.

    Args:
        source: a folder as `save_pretrained` writes it, or the id of one on the Hugging Face hub; only safetensors are
            read, never a pickle.

    Raises:
        UserError: there is none, it is damaged, its weights are not all there, or diffusers is not installed.
    """
    if not Path(source).is_dir() and (source.count("/") != 1 or source.startswith((".", "/", "~"))):
        raise UserError(f"vae '{source}' is neither a folder nor the id of a repository, such as {DEFAULT_VAE}")
    try:
        kind = import_module("diffusers").AutoencoderKL
    except ImportError as error:
        raise UserError(f"latents need diffusers ({error}): pip install 'sitkit[vae]'") from error
    try:
        with _quiet():
            vae, told = kind.from_pretrained(
                source,
                use_safetensors=True,
                torch_dtype=torch.float32,
                low_cpu_mem_usage=False,  # True asks for accelerate
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"vae '{source}' cannot be loaded as safetensors of an AutoencoderKL: {reason}") from error
    for what, names in told.items():  # diffusers only warns, and leaves what is missing at random
        if names:
            raise UserError(f"vae '{source}' is no whole AutoencoderKL: {what.replace('_', ' ')} {', '.join(names)}")
    if vae.config.latents_mean is not None or vae.config.latents_std is not None:
        raise UserError(f"vae '{source}' scales its channels one by one, which is not supported: choose another")
    return vae.requires_grad_(False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what diffusers logs from standing beside the problem that tells of it."""
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def fingerprint(vae: VAE, prefixes: tuple[str, ...] = ("",)) -> str:
    """Return the sha256 of the weights whose names begin so, hexadecimal, however their file was laid out.

    It is taken over name, type, shape and bytes of each, in the order of the names.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(vae.state_dict().items()):
        if name.startswith(prefixes):
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
            digest.update(weight.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def scaling(vae: VAE) -> tuple[float, float]:
    """Return scale and shift: a network sees (latent - shift) * scale."""
    return float(vae.config.scaling_factor), float(vae.config.shift_factor or 0.0)


def latent_shape(vae: VAE, image: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the shape (C, h, w) of the latents of images of a shape (1 or 3, H, W).

    Raises:
        UserError: the autoencoder does not take such images.
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
    """Return mean and standard deviation of the latents, (B, 2C, h, w) float32, on the device of the autoencoder.

    Both are those of its own scale. AutoencoderKL holds the logarithm of the variance between -30 and 20, so that the
    standard deviation lies between 3e-7 and 22,027.

    Args:
        vae: the autoencoder.
        pixels: (B, 3, H, W) uint8, or (B, 1, H, W): grey becomes three equal channels.
    """
    states = to_states(pixels.to(next(vae.parameters()).device))
    with torch.no_grad(), float32_math("ieee"):
        law = vae.encode(states.expand(-1, 3, -1, -1)).latent_dist
    return torch.cat([law.mean, law.std], dim=1)


@dataclass(eq=False)
class Decoder:
    """From states to pixels: `decoder` makes one."""

    source: str
    scale: float
    shift: float = 0.0
    expected: Mapping[str, str] = field(default_factory=dict)
    batch: int = 16
    _vae: VAE = field(default=None, repr=False)

    def __call__(self, states: Tensor) -> Tensor:
        """Return pixels, (B, 3, H, W) uint8 on the device of the states, of states (B, C, h, w).

        Raises:
            UserError: at the first call: the autoencoder cannot be loaded, or is not the expected one.
        """
        if self._vae is None:
            self._vae = self._load()
        vae = self._vae.to(states.device)
        with torch.no_grad(), float32_math("ieee"):
            parts = torch.split(states.float(), self.batch)
            return torch.cat([to_pixels(vae.decode(part / self.scale + self.shift).sample) for part in parts])

    def describe(self) -> dict[str, Any]:
        """Return what decodes, for a manifest: name, sha256 of all weights (`fingerprint`), scale and shift.

        Raises:
            UserError: the autoencoder cannot be loaded, or is not the expected one.
        """
        if self._vae is None:
            self._vae = self._load()
        return {"vae": self.source, "vae_sha256": fingerprint(self._vae), "scale": self.scale, "shift": self.shift}

    def _load(self) -> VAE:
        vae = load(self.source)
        for what, prefixes in (("sha256", ("",)), ("encoder_sha256", ENCODER)):
            if self.expected.get(what, own := fingerprint(vae, prefixes)) != own:
                raise UserError(
                    f"vae '{self.source}' has other weights than that of the latents: its {what} is {own[:12]}..., "
                    f"theirs {self.expected[what][:12]}...; name the autoencoder that encoded them"
                )
        return vae


def decoder(
    source: str, *, scale: float, shift: float = 0.0, expected: Mapping[str, str] | None = None, batch: int = 16
) -> Decoder:
    """Return the function from states to pixels; the autoencoder is loaded when it is first called.

    Args:
        source: the autoencoder, as `load` takes it.
        scale: what latents were multiplied by.
        shift: what was taken off them before.
        expected: the fingerprints that the autoencoder must have, if any: `sha256` of all its weights and
            `encoder_sha256` of those that make latents.
        batch: how many images are decoded at once.
    """
    return Decoder(source, scale, shift, expected or {}, batch)
