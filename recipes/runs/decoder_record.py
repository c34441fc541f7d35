"""The record of a run's decoder, which turns states into pixels."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from ..data.images import to_pixels
from ..data.latents.lightningdit import LatentNormalization, NormalizedDecoder
from ..data.latents.vae import Decoder
from ..support.schema import Section


class DecoderRecord(Section):
    """The decoder of states: identity, an autoencoder, or a custom function."""

    kind: Literal["pixels", "vae", "own"]
    """`pixels`: states are pixels in [-1, 1]; `vae`: latents of an autoencoder; `own`: a custom function decodes."""
    vae: str = ""
    scale: Annotated[float, Field(gt=0)] = 1.0
    shift: float = 0.0
    expected: dict[str, str] = Field(default={})
    mean: tuple[float, ...] = ()
    """Of each channel, if latents are normalised by LightningDiT's statistics, before scale and shift."""
    std: tuple[Annotated[float, Field(gt=0)], ...] = ()
    multiplier: Annotated[float, Field(gt=0)] = 1.0

    @classmethod
    def of(cls, decode: Any) -> "DecoderRecord":
        """Return the record of a function from states to pixels."""
        if decode is to_pixels:
            return cls(kind="pixels")
        if isinstance(decode, NormalizedDecoder):
            scheme = decode.normalization
            mean, std = (tuple(one.flatten().tolist()) for one in (scheme.mean, scheme.std))
            of_vae = cls.of(decode.decoder)
            return of_vae.model_copy(update={"mean": mean, "std": std, "multiplier": scheme.multiplier})
        if isinstance(decode, Decoder):
            known = dict(decode.expected)
            return cls(kind="vae", vae=decode.source, scale=decode.scale, shift=decode.shift, expected=known)
        return cls(kind="own")

    def build(self, vae: str) -> Any:
        """Return the function from states to pixels; `vae` is the path of the autoencoder."""
        if self.kind == "pixels":
            return to_pixels
        decoder = Decoder(vae, self.scale, self.shift, self.expected)
        if not self.mean:
            return decoder
        mean, std = (torch.tensor(one).reshape(-1, 1, 1) for one in (self.mean, self.std))
        return NormalizedDecoder(LatentNormalization(mean, std, self.multiplier), decoder)
