"""Patches, positions, times and labels as vectors of the transformer's width (DiT, arXiv 2212.09748, sec. 3.2)."""

import math
from contextlib import nullcontext

import torch
from einops import rearrange
from torch import Tensor, nn


def sincos_positions(width: int, side: int) -> Tensor:
    """Return fixed 2-D sine-cosine positions, of shape (1, side^2, width), for a square of patches read row by row.

    The first half of the width encodes the column, the second half the row; each is `sincos` of the whole
    number that counts the patches.
    """
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    halves = [sincos(axis.flatten().double(), width // 2) for axis in (columns, rows)]
    return torch.cat(halves, dim=-1).float()[None]


def sincos(positions: Tensor, width: int) -> Tensor:
    """Return sin and cos of positions (N,) at geometric frequencies from 1 to 1 / 10,000, of shape (N, width)."""
    frequencies = 10_000.0 ** -(torch.arange(width // 2, dtype=positions.dtype) / (width // 2))
    angles = torch.outer(positions, frequencies)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class PatchEmbedding(nn.Module):
    """A linear map of each patch: (B, C, H, W) -> (B, H W / patch_size^2, width)."""

    def __init__(self, patch_size: int, in_channels: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Embed the patches, row by row."""
        patches: Tensor = self.proj(x)
        tokens = rearrange(patches, "b d h w -> b (h w) d")
        return tokens.contiguous()  # or every block would be strided so, and torch 2.13 compiles it wrongly for CPUs


class TimeEmbedding(nn.Module):
    """Cosines and sines of `time_scale` t at 128 frequencies, then an MLP of two layers: (B,) -> (B, width).

    Whatever autocast says, the angles are taken in t's own precision (float32 at least), for bfloat16 has some 1,290
    values in [0, 1] only, and the MLP in that of its weights: from B rows it makes what every token of them sees.
    """

    frequencies: Tensor

    def __init__(self, width: int, time_scale: float = 1.0):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        frequencies = time_scale * torch.exp(-math.log(10_000) * torch.arange(128) / 128)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Embed the times."""
        angles = t[:, None].to(torch.promote_types(t.dtype, torch.float32)) * self.frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        # There is no autocast on `meta`. torch before 2.13 cannot compile torch.amp.is_autocast_available.
        with nullcontext() if t.is_meta else torch.autocast(t.device.type, enabled=False):
            vectors: Tensor = self.mlp(waves.to(next(self.mlp.parameters()).dtype))
        return vectors


class LabelEmbedding(nn.Module):
    """A row for every class, and one more, the last, for the null class: (B,) -> (B, width)."""

    def __init__(self, num_classes: int, width: int):
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, y: Tensor) -> Tensor:
        """Look the labels up."""
        vectors: Tensor = self.embedding_table(y)
        return vectors
