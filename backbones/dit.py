"""The Diffusion Transformer, whose time is counted in timesteps of a discrete chain."""

import torch
from torch import Tensor, nn

from .sit import SiT


class DiT(nn.Module):
    """DiT's network (arXiv 2212.09748) as a backbone of t in [0, 1] that returns the noise prediction.

    Its layers are those of `SiT`; it was trained on timesteps k of a chain of `steps`, and time t is timestep
    steps (1 - t) - 1, as in `sitkit.interpolants.DDPM`; past the last timestep before the data, it is asked at that.
    """

    def __init__(self, network: SiT, steps: int = 1000):
        """Build it from a network of timesteps.

        Raises:
            ValueError: no steps.
        """
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        self.network = network
        self.steps = steps

    @property
    def num_classes(self) -> int:
        """How many classes there are; that is also the null label."""
        return self.network.num_classes

    def forward(self, x: Tensor, t: Tensor, /, y: Tensor | None = None) -> Tensor:
        """Return the noise, (B, C, H, W), for x (B, C, H, W), t (B,) in [0, 1] and labels y (B,)."""
        return self.full(x, t, y)[:, : self.network.in_channels]

    def full(self, x: Tensor, t: Tensor, /, y: Tensor | None = None) -> Tensor:
        """Return all output channels: noise, and range of the variance, (B, 2 C, H, W), where it was learnt.

        Raises:
            ValueError: x, t or y of another shape.
        """
        timestep = (self.steps * (1 - t.to(torch.promote_types(t.dtype, torch.float32))) - 1).clamp(min=0)
        return self.network.full(x, timestep, y)


def dit(
    *,
    input_size: int,
    patch_size: int,
    in_channels: int,
    hidden_size: int,
    depth: int,
    num_heads: int,
    num_classes: int,
    learn_sigma: bool = True,
    steps: int = 1000,
) -> DiT:
    """Return a DiT of these sizes, with the initial weights of `SiT`, whose arguments and errors these are."""
    network = SiT(
        input_size=input_size,
        patch_size=patch_size,
        in_channels=in_channels,
        hidden_size=hidden_size,
        depth=depth,
        num_heads=num_heads,
        num_classes=num_classes,
        learn_sigma=learn_sigma,
    )
    return DiT(network, steps)
