"""Dtypes of objectives: networks are called in the dtype of the data, and losses are computed in float32 at least."""

import math

import torch
from torch import Tensor

from .protocols import Field


def upcast(values: Tensor) -> Tensor:
    """Return values in float32, or in their own dtype if it is wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def call_model(model: Field, x_t: Tensor, t: Tensor, dtype: torch.dtype) -> Tensor:
    """Call the model with states of a dtype and times of that dtype or float32; return float32 at least."""
    return upcast(model(x_t.to(dtype), t.to(torch.promote_types(dtype, torch.float32))))


def per_sample_mean(values: Tensor) -> Tensor:
    """Return the mean of values (B, *) over all dimensions but the first, (B,). Values may have shape (B,)."""
    return values.reshape(len(values), math.prod(values.shape[1:])).mean(1)
