"""Sources that are made of the data: couplings (x, noise, y) -> source for two-sided paths.

With these, a two-sided path restores images (Albergo et al., arXiv 2310.03725, sec. 4): from masked to whole ones, from
coarse to fine ones, or from noisy to clean ones. All randomness is in the noise, which is standard normal and of x's
shape. It must be independent of the noise z of the path.

A network that is conditioned on the source sees its `observation`: what the source shows of the data, without its
noise. Given the source with its noise, the path would start from a single point, and the ODE would map each source to
the mean of the data.
"""

import math
from dataclasses import dataclass
from functools import reduce
from numbers import Integral

import torch
from torch import Tensor


@dataclass(frozen=True)
class Masked:
    """Images in which tiles are replaced by noise, for in-painting. Each tile is hidden with probability `hidden`.

    The default is that of the paper: 4 by 4 tiles, hidden with probability 0.3. The noise at the first value of a tile
    decides whether the tile is hidden. With its distribution function F, the tile is hidden if F(noise) < hidden. Given
    this, F(noise) / hidden is uniform, and the inverse of F makes it standard normal noise again. So the noise in a
    hidden tile is standard normal and independent of the mask.

    Args:
        hidden: the probability that a tile is hidden, in [0, 1].
        tiles: the number of tiles along each side, or the number of pixels if there are fewer.

    Raises:
        ValueError: `hidden` is not in [0, 1], or `tiles` is not a whole number above 0.
    """

    hidden: float = 0.3
    tiles: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.hidden <= 1:
            raise ValueError(f"hidden must be a probability in [0, 1], got {self.hidden}")
        if not isinstance(self.tiles, Integral) or self.tiles < 1:
            raise ValueError(f"tiles must be a whole number, at least 1, got {self.tiles}")

    def __call__(self, x: Tensor, noise: Tensor, y: Tensor | None = None, /) -> Tensor:
        """Return x (B, C, *sides) where it is visible, and noise where it is hidden.

        Raises:
            ValueError: shapes differ, or x has no sides.
        """
        _check_shapes(x, noise)
        first, u = self._decisions(noise)
        fresh = torch.special.ndtri((u / self.hidden).clamp(max=1 - 2**-53)).to(noise.dtype)
        return torch.where(u < self.hidden, torch.where(first, fresh, noise), x)

    def observation(self, x: Tensor, noise: Tensor, y: Tensor | None = None, /) -> Tensor:
        """Return x where it is visible, and 0 where it is hidden, of x's shape: the source without its noise.

        Raises:
            ValueError: shapes differ, or x has no sides.
        """
        _check_shapes(x, noise)
        return torch.where(self.mask(noise), 0, x)

    def mask(self, noise: Tensor) -> Tensor:
        """Return whether a pixel is hidden, (B, 1, *sides), for the noise that is given to the call."""
        return self._decisions(noise)[1] < self.hidden

    def _decisions(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return where the value that decides is, (C, *sides), and F of this value for each pixel, (B, 1, *sides)."""
        values = noise[:, :1].double()
        first = torch.arange(noise.shape[1], device=noise.device) == 0
        for axis in range(2, noise.ndim):
            side = noise.shape[axis]
            pixels = torch.arange(side, device=noise.device)
            tile = pixels * min(self.tiles, side) // side
            start = torch.searchsorted(tile, tile)  # the first pixel of each pixel's tile
            values = values.index_select(axis, start)
            first = first[..., None] & (pixels == start)
        return first, torch.special.ndtr(values)


@dataclass(frozen=True)
class Coarse:
    """Images of lower resolution, for super-resolution: each block of `factor` by `factor` pixels has its mean value.

    Args:
        factor: the side of a block.
        std: the standard deviation of noise that is added.

    Raises:
        ValueError: `factor` is not a whole number above 0, or `std` is negative or not finite.
    """

    factor: int = 4
    std: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.factor, Integral) or self.factor < 1:
            raise ValueError(f"factor must be a whole number, at least 1, got {self.factor}")
        _check_std(self.std)

    def __call__(self, x: Tensor, noise: Tensor, y: Tensor | None = None, /) -> Tensor:
        """Return the coarse images, of x's shape (B, C, *sides).

        Raises:
            ValueError: shapes differ, x has no sides, or a side is not a multiple of `factor`.
        """
        return self.observation(x, noise) + self.std * noise

    def observation(self, x: Tensor, noise: Tensor, y: Tensor | None = None, /) -> Tensor:
        """Return the coarse images without noise, of x's shape. Errors are those of the call."""
        _check_shapes(x, noise)
        if any(side % self.factor for side in x.shape[2:]):
            raise ValueError(f"the sides of images must be multiples of {self.factor}, got {tuple(x.shape[2:])}")
        return reduce(self._average, range(2, x.ndim), x)

    def _average(self, x: Tensor, axis: int) -> Tensor:
        """Return x with the mean of each block along an axis in place of its values."""
        before, side, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
        blocks = x.reshape(*before, side // self.factor, self.factor, *after)
        return blocks.mean(axis + 1, keepdim=True).expand(blocks.shape).reshape(x.shape)


@dataclass(frozen=True)
class Noisy:
    """Images with added noise: x + std noise.

    Raises:
        ValueError: `std` is negative or not finite.
    """

    std: float = 1.0

    def __post_init__(self) -> None:
        _check_std(self.std)

    def __call__(self, x: Tensor, noise: Tensor, y: Tensor | None = None, /) -> Tensor:
        """Return the noisy data, of x's shape (B, *).

        Raises:
            ValueError: shapes differ.
        """
        if x.shape != noise.shape:
            raise ValueError(f"give x and noise of one shape, got {tuple(x.shape)} and {tuple(noise.shape)}")
        return x + self.std * noise


def _check_shapes(x: Tensor, noise: Tensor) -> None:
    if x.shape != noise.shape or x.ndim < 3:
        raise ValueError(
            f"give images x (B, C, H, W) and noise of one shape, got {tuple(x.shape)} and {tuple(noise.shape)}"
        )


def _check_std(std: float) -> None:
    if not 0 <= std < math.inf:
        raise ValueError(f"std must be finite and at least 0, got {std}")
