"""A plain implementation of the paper's network (DiT, arXiv 2212.09748, sec. 3.2 and fig. 3), for comparison.

One line of code for each step of the figure, as the usual open implementations have it: the positions of query, key and
value come from one permutation, and torch's own GELU by the tanh formula. Parameters have the names of the released
checkpoints: with the weights of `sitkit.backbones.SiT` the outputs are the same.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class Attention(nn.Module):
    """Multi-head self-attention, (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        B, N, D = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        out: Tensor = self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, N, D))
        return out


class FeedForward(nn.Module):
    """Two layers, (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.act = nn.GELU(approximate="tanh")

    def forward(self, x: Tensor) -> Tensor:
        """Map each token."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class Block(nn.Module):
    """A block with adaLN-Zero, (B, N, D), (B, D) -> (B, N, D)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn, self.mlp = Attention(width, heads), FeedForward(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Add both branches."""
        b1, g1, a1, b2, g2, a2 = self.adaLN_modulation(c).unsqueeze(1).chunk(6, dim=2)
        x = x + a1 * self.attn(self.norm1(x) * (1 + g1) + b1)
        out: Tensor = x + a2 * self.mlp(self.norm2(x) * (1 + g2) + b2)
        return out


class PlainSiT(nn.Module):
    """The whole network: (B, C, S, S), t (B,), labels (B,) -> (B, C, S, S)."""

    pos_embed: Tensor
    """Zero until weights are loaded: they bring it."""

    def __init__(
        self, *, side: int, width: int, depth: int, heads: int, classes: int, channels: int = 4, patch: int = 2
    ):
        super().__init__()
        self.channels, self.patch, self.across = channels, patch, side // patch
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv2d(channels, width, patch, patch)})
        mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.t_embedder = nn.ModuleDict({"mlp": mlp})
        self.y_embedder = nn.ModuleDict({"embedding_table": nn.Embedding(classes + 1, width)})
        self.register_buffer("pos_embed", torch.zeros(1, self.across**2, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        final = {"linear": nn.Linear(width, patch * patch * channels)}
        final["adaLN_modulation"] = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))  # type: ignore[assignment]
        self.final_layer = nn.ModuleDict(final)
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Return the output."""
        frequencies = torch.exp(-math.log(10_000) * torch.arange(128, device=t.device) / 128)
        angles = t[:, None] * frequencies
        c = self.t_embedder["mlp"](torch.cat([angles.cos(), angles.sin()], dim=-1))
        c = c + self.y_embedder["embedding_table"](y)
        tokens = self.x_embedder["proj"](x).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens, c)
        shift, scale = self.final_layer["adaLN_modulation"](c).unsqueeze(1).chunk(2, dim=2)
        tokens = self.final_layer["linear"](self.norm(tokens) * (1 + scale) + shift)
        n, p = self.across, self.patch
        grid = tokens.reshape(len(x), n, n, p, p, self.channels)
        return torch.einsum("nhwpqc->nchpwq", grid).reshape(len(x), self.channels, n * p, n * p)
