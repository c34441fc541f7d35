"""The conditions of a network: class labels, and sources as further input channels."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from sitkit.samplers import Field


def with_source_channels(network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a network of states and sources as a network whose conditions are (labels, sources).

    Args:
        network: called as (x with its source (B, 2 C, H, W), t), or with y=labels as well.

    Returns:
        (x (B, C, H, W), t, y=(labels (B,) or None, sources (B, C, H, W))) -> the network's output. Samplers select rows
        of such conditions, and replace labels for guidance.
    """

    def call(x: Tensor, t: Tensor, *, y: tuple[Tensor | None, Tensor]) -> Tensor:
        labels, source = y
        both = torch.cat([x, source.to(x.dtype)], dim=1)
        return network(both, t) if labels is None else network(both, t, y=labels)

    return call


def bind_conditions(network: Callable[..., Tensor], labels: Tensor | None, source: Tensor | None) -> Field:
    """Return the network as a field (x, t), with its labels and sources bound. None stands for no such condition."""
    if source is not None:
        return partial(with_source_channels(network), y=(labels, source))
    return network if labels is None else partial(network, y=labels)
