"""Conversion of REPA's weights (arXiv 2410.06940), whose time runs from data, 0, to noise, 1, to the time of sitkit.

REPA's network u is SiT's, plus projectors that only training uses. The velocity from noise to data is
v(x, t) = -u(x, 1 - t). Both the sign and the reversed time can be absorbed in the weights:

- the weights of the last layer are negated;
- the first layer of the time embedding is changed by cos w(1 - t) = cos w cos wt + sin w sin wt and
  sin w(1 - t) = sin w cos wt - cos w sin wt.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

PROJECTORS = "projectors."
"""The prefix of the weights that only training uses."""
TIME_WEIGHT, LAST_LAYER = "t_embedder.mlp.0.weight", "final_layer.linear."


def convert_repa(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of the SiT that computes the velocity from noise to data, exact up to rounding.

    Args:
        state: the state dict of REPA's network.

    Raises:
        KeyError: `state` has no time embedding.
    """
    network = {key: value for key, value in state.items() if not key.startswith(PROJECTORS)}
    converted = {key: -value if key.startswith(LAST_LAYER) else value for key, value in network.items()}
    weight = converted[TIME_WEIGHT].double()
    count = weight.shape[1] // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(count, dtype=torch.float64) / count)
    cosines, sines = weight[:, :count], weight[:, count:]
    halves = (
        cosines * frequencies.cos() + sines * frequencies.sin(),
        cosines * frequencies.sin() - sines * frequencies.cos(),
    )
    return {**converted, TIME_WEIGHT: torch.cat(halves, dim=1).to(converted[TIME_WEIGHT].dtype)}
