"""Sources of the noise of stochastic steps."""

import struct
from dataclasses import dataclass

import torch
from torch import Tensor

from . import philox


def white(x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
    """Return standard normal noise of x's shape from torch's global generator."""
    return torch.randn_like(x)


@dataclass(frozen=True, eq=False)
class Keyed:
    """Noise that is a function of (seed, sample number, t, s): the same for a sample in whatever batch it comes.

    Args:
        seed: any integer; its low 64 bits count.
        index: the sample numbers of the rows, (B,) int64.
    """

    seed: int
    index: Tensor

    def __call__(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return standard normal noise of x's shape (B, *) for the step from t to s.

        Raises:
            ValueError: x has not as many rows as there are sample numbers.
        """
        if len(x) != len(self.index):
            raise ValueError(f"there are {len(self.index)} sample numbers, and x has {len(x)} rows")
        key = philox.key(self.seed, _bits(t), _bits(s))
        return philox.normal(key, self.index.to(x.device), tuple(x.shape[1:])).to(x.dtype)


def _bits(t: Tensor) -> int:
    """Return the 64 bits of the time as a double, so that it counts by its value and not by its precision."""
    return int.from_bytes(struct.pack("<d", float(t) + 0.0), "little")
