"""The Diffusion Transformer (DiT), a network of discrete timesteps."""

import torch
from torch import Tensor, nn

from .sit import SiT


class DiT(nn.Module):
    """DiT's network (arXiv 2212.09748) as a backbone of t in [0, 1] that predicts the noise.

    The layers are those of `SiT`, but the network takes timesteps of a discrete chain. Time t is converted to timestep
    steps (1 - t) - 1, as in `sitkit.interpolants.DDPM`. Negative timesteps are clamped to 0, the timestep nearest to
    the data.
    """

    def __init__(self, network: SiT, steps: int = 1000):
        """Wrap a network that takes timesteps 0 ... steps - 1.

        Raises:
            ValueError: `steps` is less than 1.
        """
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        self.network = network
        self.steps = steps

    @property
    def num_classes(self) -> int:
        """The number of classes, which is also the null label."""
        return self.network.num_classes

    def forward(self, x: Tensor, t: Tensor, /, y: Tensor | None = None) -> Tensor:
        """Return the predicted noise, (B, C, H, W), for x (B, C, H, W), t (B,) in [0, 1] and labels y (B,)."""
        return self.full(x, t, y)[:, : self.network.in_channels]

    def full(self, x: Tensor, t: Tensor, /, y: Tensor | None = None) -> Tensor:
        """Return all output channels: the noise and, with `learn_sigma`, the variance range, (B, 2 C, H, W).

        Raises:
            ValueError: x, t or y has a wrong shape.
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
    """Return a DiT with the initial weights of `SiT`. Arguments and errors are those of `SiT`."""
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
