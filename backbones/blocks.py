"""The blocks of a Diffusion Transformer with adaLN-Zero conditioning (DiT, arXiv 2212.09748, fig. 3).

Every block receives the condition c (B, D) through the linear layer `adaLN_modulation`, which is initialised to zero.
At initialisation, a block is therefore the identity, and the output of the network is zero.
"""

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return x (1 + scale) + shift for tokens x (B, N, D) and vectors (B, D)."""
    return x * (1 + scale[:, None]) + shift[:, None]


def norm(width: int) -> nn.LayerNorm:
    """Return a layer norm without learnt shift and scale, which the condition provides."""
    return nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)


class Attention(nn.Module):
    """Multi-head self-attention: (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens after attention."""
        parts = self.qkv(x).chunk(3, dim=-1)  # chunking before rearranging saves copies in the backward pass
        q, k, v = (rearrange(part, "b n (h d) -> b h n d", h=self.num_heads) for part in parts)
        heads = scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(heads, "b h n d -> b n (h d)"))  # type: ignore[no-any-return]


class GELU(nn.Module):
    """GELU by the tanh approximation (arXiv 1606.08415, sec. 2): x (1 + tanh u) / 2 = x sigmoid(2 u)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation elementwise."""
        if not torch.compiler.is_compiling() or x.device.type != "cpu":
            return gelu(x, approximate="tanh")
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # torch 2.13 compiles tanh on CPUs to code that is as slow as the rest of a block without its matmuls
        gate = torch.sigmoid(2 * math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3))
        return (wide * gate).to(x.dtype)


class FeedForward(nn.Module):
    """Two linear layers with hidden width 4 D and GELU: (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = GELU()
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers to each token."""
        return self.fc2(self.act(self.fc1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A transformer block with adaLN-Zero conditioning: (B, N, D), (B, D) -> (B, N, D)."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.norm1 = norm(width)
        self.attn = Attention(width, num_heads)
        self.norm2 = norm(width)
        self.mlp = FeedForward(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Add the modulated and gated outputs of attention and feed-forward to the tokens."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.adaLN_modulation(c).chunk(6, dim=-1)
        x = x + gate_1[:, None] * self.attn(modulate(self.norm1(x), shift_1, scale_1))
        x = x + gate_2[:, None] * self.mlp(modulate(self.norm2(x), shift_2, scale_2))
        return x


class FinalLayer(nn.Module):
    """The map from tokens to the pixels of patches: (B, N, D), (B, D) -> (B, N, patch_size^2 out_channels)."""

    def __init__(self, width: int, patch_size: int, out_channels: int):
        super().__init__()
        self.norm_final = norm(width)
        self.linear = nn.Linear(width, patch_size**2 * out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Modulate the tokens and apply the linear layer."""
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=-1)
        return self.linear(modulate(self.norm_final(x), shift, scale))  # type: ignore[no-any-return]
