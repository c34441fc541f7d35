"""The blocks of a Diffusion Transformer with adaLN-Zero conditioning (DiT, arXiv 2212.09748, fig. 3).

Every block reads the condition c (B, D) through `adaLN_modulation`, which starts at zero: at initialisation a
block is the identity and the network's output is zero.
"""

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Shift and scale tokens x (B, N, D) by vectors (B, D)."""
    return x * (1 + scale[:, None]) + shift[:, None]


def norm(width: int) -> nn.LayerNorm:
    """Return the layer norm whose shift and scale are the condition's affair."""
    return nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)


class Attention(nn.Module):
    """Multi-head self-attention: (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from every token to every token."""
        parts = self.qkv(x).chunk(3, dim=-1)  # cut here, their gradients are put together by one copy
        q, k, v = (rearrange(part, "b n (h d) -> b h n d", h=self.num_heads) for part in parts)
        heads = scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(heads, "b h n d -> b n (h d)"))  # type: ignore[no-any-return]


class GELU(nn.Module):
    """x Phi(x) by the tanh formula (arXiv 1606.08415, sec. 2): the gate is (1 + tanh u) / 2 = sigmoid(2 u)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map every number alike."""
        if not torch.compiler.is_compiling() or x.device.type != "cpu":
            return gelu(x, approximate="tanh")
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # torch 2.13 compiles tanh for CPUs to a function that costs as much as all the rest of a block but its products
        gate = torch.sigmoid(2 * math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3))
        return (wide * gate).to(x.dtype)


class FeedForward(nn.Module):
    """Two linear layers, four times as wide between them: (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = GELU()
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map every token alike."""
        return self.fc2(self.act(self.fc1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and feed-forward, each modulated and gated by the condition: (B, N, D), (B, D) -> (B, N, D)."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.norm1 = norm(width)
        self.attn = Attention(width, num_heads)
        self.norm2 = norm(width)
        self.mlp = FeedForward(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Add both branches to the tokens."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.adaLN_modulation(c).chunk(6, dim=-1)
        x = x + gate_1[:, None] * self.attn(modulate(self.norm1(x), shift_1, scale_1))
        x = x + gate_2[:, None] * self.mlp(modulate(self.norm2(x), shift_2, scale_2))
        return x


class FinalLayer(nn.Module):
    """From tokens to pixels of patches: (B, N, D), (B, D) -> (B, N, patch_size^2 out_channels)."""

    def __init__(self, width: int, patch_size: int, out_channels: int):
        super().__init__()
        self.norm_final = norm(width)
        self.linear = nn.Linear(width, patch_size**2 * out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Modulate the tokens and read them out."""
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=-1)
        return self.linear(modulate(self.norm_final(x), shift, scale))  # type: ignore[no-any-return]
