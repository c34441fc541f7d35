"""No data: what is known of those that a network was trained on elsewhere, or that are not asked for."""

from dataclasses import dataclass

from torch import Tensor

from ..support.errors import UserError
from .images import NoiseFunction, Split, to_pixels
from .latents.vae import DEFAULT_VAE, decoder

NO_DATA = (
    "this run's data are absent: it can be sampled from, and no more; `sitkit convert --set data.kind=latents "
    "--set data.path=DIR` makes a run that has data"
)


@dataclass(frozen=True)
class AbsentImages:
    """Images of which the shape is known, and perhaps the number: whoever asks for more is told of the problem.

    Args:
        shape: (C, H, W) of a state.
        count: how many there are, if that is known.
        problem: what to say to whoever asks for more.
    """

    shape: tuple[int, int, int]
    count: int | None = None
    problem: str = NO_DATA

    @property
    def labels(self) -> Tensor:
        """Raise the problem."""
        raise UserError(self.problem)

    def __len__(self) -> int:
        if self.count is None:
            raise UserError(self.problem)
        return self.count

    def states(self, numbers: Tensor, flips: Tensor, noise: NoiseFunction, /) -> Tensor:
        """Raise the problem."""
        raise UserError(self.problem)

    def read(self, numbers: Tensor, /) -> Tensor:
        """Raise the problem."""
        raise UserError(self.problem)


def absent(
    shape: tuple[int, int, int], classes: int = 0, vae: str = DEFAULT_VAE, scale: float = 0.18215, shift: float = 0.0
) -> Split:
    """Return data that are not there: enough to sample by, not to train, to measure or to compare with.

    Args:
        shape: (C, H, W) of a state.
        classes: how many there are; their names are their numbers.
        vae: the autoencoder that makes pixels of states, a folder or an id; `none` if states are pixels in [-1, 1].
        scale: what latents were multiplied by, by default SiT's and DiT's factor.
        shift: what was taken off them before.

    Raises:
        UserError: states of so many channels are no pixels.
    """
    names = tuple(str(label) for label in range(classes))
    if vae == "none" and shape[0] not in (1, 3):
        raise UserError(f"states of {shape[0]} channels are no pixels: name the vae that makes pixels of them")
    decode = to_pixels if vae == "none" else decoder(vae, scale=scale, shift=shift)
    return Split(AbsentImages(shape), AbsentImages(shape), names, decode)
