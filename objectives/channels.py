"""Networks with twice the channels of the state, for two predictions."""

import torch
from torch import Tensor


def split_channels(output: Tensor, x: Tensor, names: str) -> tuple[Tensor, Tensor]:
    """Return the two halves, (B, C, ...) each, of an output (B, 2 C, ...) for states x (B, C, ...).

    Raises:
        ValueError: the output has another shape. `names` says in the message what the halves are.
    """
    if x.ndim < 2 or output.shape != (len(x), 2 * x.shape[1], *x.shape[2:]):
        raise ValueError(
            f"the model must return {names} in twice the channels of x, got {tuple(output.shape)} for x "
            f"{tuple(x.shape)}"
        )
    first, second = torch.chunk(output, 2, dim=1)
    return first, second
