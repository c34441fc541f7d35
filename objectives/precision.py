"""Precision of objectives: a network is asked in that of the data, and errors are taken in float32 at least."""

import math

import torch
from torch import Tensor

from .protocols import Field


def wide(values: Tensor) -> Tensor:
    """Return values in their precision, or in float32 if that is lower."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def asked(model: Field, x_t: Tensor, t: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the model's output, float32 at least, for states of that dtype and times of it or of float32."""
    return wide(model(x_t.to(dtype), t.to(torch.promote_types(dtype, torch.float32))))


def mean_of_rows(values: Tensor) -> Tensor:
    """Return the mean over all dimensions but the first, (B,), of values (B, *), (B,) included."""
    return values.reshape(len(values), math.prod(values.shape[1:])).mean(1)
