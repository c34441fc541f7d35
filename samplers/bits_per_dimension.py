"""Uniform dequantisation and bits per dimension of images with integer pixels.

Uniform noise over the bin of each pixel gives data with a density. The mean log-density over a bin is a lower bound of
the log-probability of the image (Theis et al., arXiv 1511.01844).
"""

import math
from numbers import Integral

import torch
from torch import Tensor


def dequantise(pixels: Tensor, uniforms: Tensor, *, levels: int = 256) -> Tensor:
    """Return states (B, *) distributed uniformly over the bins of pixels. Pixels 0 ... levels - 1 map to -1 ... 1.

    Args:
        pixels: integer pixels, (B, *).
        uniforms: uniform noise in [0, 1), (B, *). States have its dtype, float32 at least.
        levels: the number of values of a pixel.

    Raises:
        ValueError: shapes differ, `uniforms` is not floating point, or `levels` is less than 2.
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
    """Return bits per dimension, (B,), from the log-density of states of `dequantise`, (B,), in nats.

    Args:
        log_prob: the log-density of each image.
        dimensions: the number of values of an image.
        levels: the number of values of a pixel.

    Raises:
        ValueError: `dimensions` is less than 1, or `levels` is less than 2.
    """
    if not isinstance(dimensions, Integral) or dimensions < 1 or not levels >= 2:
        raise ValueError(f"give whole dimensions >= 1 and levels >= 2, got {dimensions} and {levels}")
    width = 2 / (levels - 1)
    return -(log_prob / dimensions + math.log(width)) / math.log(2)
