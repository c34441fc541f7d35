"""How states become pixels, as a run writes it down."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from ..data.images import to_pixels
from ..data.latents.lightningdit import LatentNormalization, NormalizedDecoder
from ..data.latents.vae import Decoder
from ..support.schema import Section


class DecoderRecord(Section):
    """How states become pixels."""

    kind: Literal["pixels", "vae", "own"]
    """States are pixels in [-1, 1], or latents of an autoencoder; or the user's own function makes pixels of them."""
    vae: str = ""
    scale: Annotated[float, Field(gt=0)] = 1.0
    shift: float = 0.0
    expected: dict[str, str] = Field(default={})
    mean: tuple[float, ...] = ()
    """Of each channel, if they were normalised by LightningDiT's statistics, which come before scale and shift."""
    std: tuple[Annotated[float, Field(gt=0)], ...] = ()
    multiplier: Annotated[float, Field(gt=0)] = 1.0

    @classmethod
    def of(cls, decode: Any) -> "DecoderRecord":
        """Return what there is to know of a function from states to pixels."""
        if decode is to_pixels:
            return cls(kind="pixels")
        if isinstance(decode, NormalizedDecoder):
            scheme = decode.normalisation
            mean, std = (tuple(one.flatten().tolist()) for one in (scheme.mean, scheme.std))
            of_vae = cls.of(decode.decoder)
            return of_vae.model_copy(update={"mean": mean, "std": std, "multiplier": scheme.multiplier})
        if isinstance(decode, Decoder):
            known = dict(decode.expected)
            return cls(kind="vae", vae=decode.source, scale=decode.scale, shift=decode.shift, expected=known)
        return cls(kind="own")

    def build(self, vae: str) -> Any:
        """Return the function from states to pixels, by the autoencoder at a place."""
        if self.kind == "pixels":
            return to_pixels
        decoder = Decoder(vae, self.scale, self.shift, self.expected)
        if not self.mean:
            return decoder
        mean, std = (torch.tensor(one).reshape(-1, 1, 1) for one in (self.mean, self.std))
        return NormalizedDecoder(LatentNormalization(mean, std, self.multiplier), decoder)
