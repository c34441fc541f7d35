"""Densities of states, read as probabilities of images of whole numbers.

Uniform noise over a pixel's bin turns images into data with a density, whose mean log-density over a bin bounds the log
of the bin's probability from below (Theis et al., arXiv 1511.01844).
"""

import math
from numbers import Integral

import torch
from torch import Tensor


def dequantise(pixels: Tensor, uniforms: Tensor, *, levels: int = 256) -> Tensor:
    """Return states (B, *) spread over the bins of pixels 0 ... levels - 1; the bins' middles go from -1 to 1.

    Args:
        pixels: whole numbers, (B, *).
        uniforms: noise in [0, 1), (B, *), floating point; states have its precision, or float32 if that is lower.
        levels: how many values a pixel may have.

    Raises:
        ValueError: shapes that differ, uniforms that are not floating point, or fewer than two levels.
    """
    if not uniforms.is_floating_point():
        raise ValueError(f"uniforms must be floating point numbers in [0, 1), got {uniforms.dtype}")
    if pixels.shape != uniforms.shape or not levels >= 2:
        raise ValueError(
            f"give pixels and uniforms of one shape, and levels >= 2; got {tuple(pixels.shape)}, "
            f"{tuple(uniforms.shape)} and {levels}"
        )
    dtype = torch.promote_types(uniforms.dtype, torch.float32)
    return (2 * (pixels.to(dtype) + uniforms.to(dtype)) - 1) / (levels - 1) - 1


def bits_per_dimension(log_prob: Tensor, dimensions: int, *, levels: int = 256) -> Tensor:
    """Return the bits that a pixel costs, (B,), from the log-density (B,), in nats, of what `dequantise` returns.

    Args:
        log_prob: of the whole image.
        dimensions: how many numbers an image has.
        levels: how many values a pixel may have.

    Raises:
        ValueError: no dimensions, or fewer than two levels.
    """
    if not isinstance(dimensions, Integral) or dimensions < 1 or not levels >= 2:
        raise ValueError(f"give whole dimensions >= 1 and levels >= 2, got {dimensions} and {levels}")
    width = 2 / (levels - 1)
    return -(log_prob / dimensions + math.log(width)) / math.log(2)
