"""REPA's weights (arXiv 2410.06940), whose time runs from data, 0, to noise, 1, turned to run as it does here.

The network is SiT's, but for layers beside it that only training needs. With tau = 1 - t its velocity is
v(x, t) = -u(x, 1 - t). Both turns are linear in the weights next to them, so that the same layers with other weights
are the velocity: the last layer's are negated, and the time embedding's first layer takes
cos w(1 - t) = cos w cos wt + sin w sin wt and sin w(1 - t) = sin w cos wt - cos w sin wt.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

BESIDE = "projectors."
"""How the names begin of what only training needs."""
TIMES, LAST = "t_embedder.mlp.0.weight", "final_layer.linear."


def turned(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of the SiT that is the velocity from noise to data, exact but for rounding.

    Args:
        state: of REPA's network.

    Raises:
        KeyError: it has no time embedding.
    """
    network = {key: value for key, value in state.items() if not key.startswith(BESIDE)}
    kept = {key: -value if key.startswith(LAST) else value for key, value in network.items()}
    weight = kept[TIMES].double()
    count = weight.shape[1] // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(count, dtype=torch.float64) / count)
    cosines, sines = weight[:, :count], weight[:, count:]
    halves = (
        cosines * frequencies.cos() + sines * frequencies.sin(),
        cosines * frequencies.sin() - sines * frequencies.cos(),
    )
    return {**kept, TIMES: torch.cat(halves, dim=1).to(kept[TIMES].dtype)}
