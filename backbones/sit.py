"""The Scalable Interpolant Transformer (SiT). The network is that of the Diffusion Transformer (DiT).

Sources: SiT, arXiv 2401.08740, appendix E; DiT, arXiv 2212.09748, sec. 3.2. Modules and parameters have the names of
the released checkpoints, so that their state dicts load unchanged.
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from .blocks import Block, FinalLayer
from .embeddings import LabelEmbedding, PatchEmbedding, TimeEmbedding, sincos_positions


class SiT(nn.Module):
    """A transformer over image patches, conditioned on time and class by adaLN-Zero.

    Args:
        input_size: the height and width of the input, in pixels or latents.
        patch_size: the height and width of a patch.
        in_channels: the number of channels of the input.
        hidden_size: the width of the tokens.
        depth: the number of blocks.
        num_heads: the number of attention heads.
        num_classes: the number of classes. Label `num_classes`, or `y=None`, is the null class of classifier-free
            guidance. With 0 the network is unconditional.
        learn_sigma: whether the network has twice as many output channels. A call then returns the first half, as in
            the official code, and `full` returns all.
        out_channels: the number of channels of the output, which a call then returns. The default is `in_channels`. The
            objective of two-sided paths takes twice the channels of the state.
        time_scale: the factor of t before its sinusoidal embedding. The released weights have 1. Networks that are
            trained from scratch distinguish times better with 1,000, for which the embedding was designed.
    """

    pos_embed: Tensor

    def __init__(
        self,
        *,
        input_size: int,
        patch_size: int,
        in_channels: int,
        hidden_size: int,
        depth: int,
        num_heads: int,
        num_classes: int,
        learn_sigma: bool = False,
        out_channels: int | None = None,
        time_scale: float = 1.0,
    ):
        """Build the network for images (in_channels, input_size, input_size).

        Raises:
            ValueError: a size is not positive, sizes do not divide as required, or `out_channels` is given with
                `learn_sigma`.
        """
        super().__init__()
        if learn_sigma and out_channels is not None:
            raise ValueError(f"give learn_sigma or out_channels = {out_channels}, not both")
        self.out_channels = in_channels if out_channels is None else out_channels
        sizes = (input_size, patch_size, in_channels, self.out_channels, hidden_size, depth, num_heads)
        if min(sizes) < 1 or num_classes < 0:
            raise ValueError("the sizes of a SiT must be positive, and num_classes at least 0")
        if input_size % patch_size:
            raise ValueError(f"patch_size must divide input_size, got {patch_size} and {input_size}")
        if hidden_size % num_heads or hidden_size % 4:
            raise ValueError(
                f"hidden_size must be divisible by num_heads and by 4, got {hidden_size} and {num_heads} heads"
            )
        self.input_size = input_size
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.x_embedder = PatchEmbedding(patch_size, in_channels, hidden_size)
        self.t_embedder = TimeEmbedding(hidden_size, time_scale)
        if num_classes:
            self.y_embedder = LabelEmbedding(num_classes, hidden_size)
        self.register_buffer("pos_embed", sincos_positions(hidden_size, input_size // patch_size))
        self.blocks = nn.ModuleList(Block(hidden_size, num_heads) for _ in range(depth))
        self.final_layer = FinalLayer(hidden_size, patch_size, self.out_channels * (2 if learn_sigma else 1))
        self._initialise()

    def forward(self, x: Tensor, t: Tensor, /, y: Tensor | None = None) -> Tensor:
        """Return the first `out_channels` channels, (B, C, H, W), for x (B, C, H, W), t (B,) and labels y (B,)."""
        output = self.full(x, t, y)
        if output.shape[1] == self.out_channels:
            return output  # without slicing, because FSDP2 warns about modules that return views
        return output[:, : self.out_channels]

    def full(self, x: Tensor, t: Tensor, /, y: Tensor | None = None) -> Tensor:
        """Return all output channels: (B, C, H, W), or (B, 2 C, H, W) with `learn_sigma`.

        Raises:
            ValueError: x, t or y has a wrong shape, or y is given to an unconditional network.
        """
        c = self._condition(x, t, y)  # (B, D)
        tokens = self.x_embedder(x) + self.pos_embed  # (B, N, D)
        for block in self.blocks:
            tokens = block(tokens, c)
        patches: Tensor = self.final_layer(tokens, c)  # (B, N, P P C)
        side, p = self.input_size // self.patch_size, self.patch_size
        return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=side, w=side, p=p, q=p)

    def _condition(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """Return the sum of the embeddings of time and label, (B, D)."""
        wanted = (self.in_channels, self.input_size, self.input_size)
        if x.ndim != 4 or x.shape[1:] != wanted:
            raise ValueError(f"this SiT takes x of shape (B, {', '.join(map(str, wanted))}), got {tuple(x.shape)}")
        if t.shape != x.shape[:1]:
            raise ValueError(f"t must have shape ({len(x)},) as x has {len(x)} rows, got {tuple(t.shape)}")
        c: Tensor = self.t_embedder(t)
        if not self.num_classes:
            if y is not None:
                raise ValueError("this SiT is unconditional (num_classes=0): call it without y")
            return c
        if y is None:
            y = torch.full_like(t, self.num_classes, dtype=torch.long)
        if y.shape != t.shape:
            raise ValueError(f"y must have shape ({len(x)},) as x has {len(x)} rows, got {tuple(y.shape)}")
        return c + self.y_embedder(y)  # type: ignore[no-any-return]

    def _initialise(self) -> None:
        """Initialise linear layers by Xavier, embeddings by N(0, 0.02^2), modulation and output by 0 (official)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        patches = self.x_embedder.proj
        nn.init.xavier_uniform_(patches.weight.view(len(patches.weight), -1))  # as a linear layer of flattened patches
        nn.init.zeros_(patches.bias)  # type: ignore[arg-type]
        for layer in self.t_embedder.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
        if self.num_classes:
            nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for part in (*self.blocks, self.final_layer):
            nn.init.zeros_(part.adaLN_modulation[-1].weight)
            nn.init.zeros_(part.adaLN_modulation[-1].bias)
        nn.init.zeros_(self.final_layer.linear.weight)
        nn.init.zeros_(self.final_layer.linear.bias)
