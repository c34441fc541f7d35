"""A small network for points in few dimensions."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


class MLP(nn.Module):
    """A residual MLP: points (B, features) and times (B,) -> (B, out_features), or (B, features) by default.

    The input is a linear map of the points plus a linear map of sines and cosines of pi t times 1, 2, 4, ..., 128. The
    output is initialised to zero.
    """

    frequencies: Tensor

    def __init__(self, features: int, *, hidden_size: int = 256, depth: int = 3, out_features: int | None = None):
        """Build the network.

        Raises:
            ValueError: a size is less than 1.
        """
        super().__init__()
        out_features = features if out_features is None else out_features
        if min(features, hidden_size, depth, out_features) < 1:
            raise ValueError(f"sizes must be at least 1, got {features=}, {hidden_size=}, {depth=}, {out_features=}")
        self.features = features
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(8), persistent=False)
        self.embed = nn.Linear(features, hidden_size)
        self.times = nn.Linear(16, hidden_size)
        self.layers = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(2 * depth))
        self.out = nn.Linear(hidden_size, out_features)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, t: Tensor, /, y: Tensor | None = None) -> Tensor:
        """Return the output, (B, out_features).

        Raises:
            ValueError: x is not (B, features), t is not (B,), or y is given: the network is unconditional.
        """
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ValueError(f"this MLP takes x of shape (B, {self.features}), got {tuple(x.shape)}")
        if t.shape != x.shape[:1]:
            raise ValueError(f"t must have shape ({len(x)},) as x has {len(x)} rows, got {tuple(t.shape)}")
        if y is not None:
            raise ValueError("an MLP is unconditional: call it without y")
        angles = t[:, None] * self.frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.times.weight.dtype)
        h = self.embed(x) + self.times(waves)
        for first, second in zip(self.layers[::2], self.layers[1::2], strict=True):
            h = h + second(silu(first(silu(h))))
        return self.out(silu(h))  # type: ignore[no-any-return]
