"""Builders of the four published sizes of SiT (arXiv 2401.08740, table 9).

| size | depth | width | heads | parameters at patch 2 |
| --- | --- | --- | --- | --- |
| S | 12 | 384 | 6 | 33 M |
| B | 12 | 768 | 12 | 130 M |
| L | 24 | 1024 | 16 | 458 M |
| XL | 28 | 1152 | 16 | 675 M |
"""

from typing import Protocol

from .sit import SiT


class Size(Protocol):
    """A function that builds a SiT of one size."""

    def __call__(
        self,
        patch_size: int = 2,
        *,
        input_size: int,
        in_channels: int,
        num_classes: int,
        learn_sigma: bool = False,
        out_channels: int | None = None,
        time_scale: float = 1.0,
    ) -> SiT:
        """Return the network. The arguments are those of `SiT`."""
        ...


def _size(name: str, hidden_size: int, depth: int, num_heads: int) -> Size:
    def build(
        patch_size: int = 2,
        *,
        input_size: int,
        in_channels: int,
        num_classes: int,
        learn_sigma: bool = False,
        out_channels: int | None = None,
        time_scale: float = 1.0,
    ) -> SiT:
        return SiT(
            input_size=input_size,
            patch_size=patch_size,
            in_channels=in_channels,
            hidden_size=hidden_size,
            depth=depth,
            num_heads=num_heads,
            num_classes=num_classes,
            learn_sigma=learn_sigma,
            out_channels=out_channels,
            time_scale=time_scale,
        )

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"Return a SiT of depth {depth}, width {hidden_size} and {num_heads} heads."
    return build


sit_s = _size("sit_s", hidden_size=384, depth=12, num_heads=6)
sit_b = _size("sit_b", hidden_size=768, depth=12, num_heads=12)
sit_l = _size("sit_l", hidden_size=1024, depth=24, num_heads=16)
sit_xl = _size("sit_xl", hidden_size=1152, depth=28, num_heads=16)
