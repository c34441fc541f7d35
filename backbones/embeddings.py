"""Embeddings of patches, positions, times and labels (DiT, arXiv 2212.09748, sec. 3.2)."""

import math
from contextlib import nullcontext

import torch
from einops import rearrange
from torch import Tensor, nn


def sincos_positions(width: int, side: int) -> Tensor:
    """Return fixed 2-D sine-cosine position embeddings, (1, side^2, width), for side x side patches in row-major order.

    The first half of the width is `sincos` of the column index, and the second half that of the row index.
    """
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    halves = [sincos(axis.flatten().double(), width // 2) for axis in (columns, rows)]
    return torch.cat(halves, dim=-1).float()[None]


def sincos(positions: Tensor, width: int) -> Tensor:
    """Return sin and cos, (N, width), of positions (N,) at geometric frequencies from 1 to 1 / 10,000."""
    frequencies = 10_000.0 ** -(torch.arange(width // 2, dtype=positions.dtype) / (width // 2))
    angles = torch.outer(positions, frequencies)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class PatchEmbedding(nn.Module):
    """A linear map of each patch: (B, C, H, W) -> (B, H W / patch_size^2, width)."""

    def __init__(self, patch_size: int, in_channels: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens of the patches in row-major order."""
        patches: Tensor = self.proj(x)
        tokens = rearrange(patches, "b d h w -> b (h w) d")
        return tokens.contiguous()  # torch 2.13 compiles strided tokens wrongly on CPUs


class TimeEmbedding(nn.Module):
    """Cosines and sines of `time_scale` t at 128 frequencies, followed by a two-layer MLP: (B,) -> (B, width).

    Autocast is disabled: angles are computed in t's dtype, float32 at least, and the MLP in the dtype of its weights.
    Times in bfloat16 would be too coarse, and the MLP is cheap, as it has B rows only.
    """

    frequencies: Tensor

    def __init__(self, width: int, time_scale: float = 1.0):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        frequencies = time_scale * torch.exp(-math.log(10_000) * torch.arange(128) / 128)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Return the embeddings of times t (B,)."""
        angles = t[:, None].to(torch.promote_types(t.dtype, torch.float32)) * self.frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        # The meta device has no autocast, and torch before 2.13 cannot compile torch.amp.is_autocast_available.
        with nullcontext() if t.is_meta else torch.autocast(t.device.type, enabled=False):
            vectors: Tensor = self.mlp(waves.to(next(self.mlp.parameters()).dtype))
        return vectors


class LabelEmbedding(nn.Module):
    """A table with one vector per class and, as the last row, one for the null class: (B,) -> (B, width)."""

    def __init__(self, num_classes: int, width: int):
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, y: Tensor) -> Tensor:
        """Return the embeddings of labels y (B,)."""
        vectors: Tensor = self.embedding_table(y)
        return vectors
