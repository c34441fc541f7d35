"""Absent data: shape and classes without images, for converted weights and for runs whose images are not needed."""

from dataclasses import dataclass

from torch import Tensor

from ..support.errors import UserError
from .images import NoiseFunction, Split, to_pixels
from .latents.vae import DEFAULT_VAE, decoder

NO_DATA = (
    "the data of this run are absent, so that it can only be sampled; `sitkit convert --set data.kind=latents "
    "--set data.path=DIR` creates a run with data"
)


@dataclass(frozen=True)
class AbsentImages:
    """Images of a known shape, and perhaps a known number, that cannot be read. Reading them raises UserError.

    Args:
        shape: (C, H, W) of a state.
        count: the number of images, if it is known.
        problem: the message of the error.
    """

    shape: tuple[int, int, int]
    count: int | None = None
    problem: str = NO_DATA

    @property
    def labels(self) -> Tensor:
        """Raise UserError."""
        raise UserError(self.problem)

    def __len__(self) -> int:
        if self.count is None:
            raise UserError(self.problem)
        return self.count

    def states(self, indices: Tensor, flips: Tensor, noise: NoiseFunction, /) -> Tensor:
        """Raise UserError."""
        raise UserError(self.problem)

    def read(self, indices: Tensor, /) -> Tensor:
        """Raise UserError."""
        raise UserError(self.problem)


def absent(
    shape: tuple[int, int, int], classes: int = 0, vae: str = DEFAULT_VAE, scale: float = 0.18215, shift: float = 0.0
) -> Split:
    """Return data without images, for sampling alone: training and evaluation need images.

    Args:
        shape: (C, H, W) of a state.
        classes: the number of classes; their names are their labels.
        vae: the autoencoder that decodes states, a folder or an id; `none` if states are pixels in [-1, 1].
        scale: the factor of the latents, by default that of SiT and DiT.
        shift: the shift of the latents: a state is (latent - shift) * scale.

    Raises:
        UserError: `vae` is `none`, and states do not have the channels of pixels.
    """
    names = tuple(str(label) for label in range(classes))
    if vae == "none" and shape[0] not in (1, 3):
        raise UserError(f"states of {shape[0]} channels are not pixels: set vae to the autoencoder that decodes them")
    decode = to_pixels if vae == "none" else decoder(vae, scale=scale, shift=shift)
    return Split(AbsentImages(shape), AbsentImages(shape), names, decode)
