"""Checks that all metrics of two sets of features share."""

import torch
from torch import Tensor

MAX_PAIRS = 2**22
"""The default number of pairs of points that are compared at once: some tens of megabytes."""


def validate_features(real: Tensor, fake: Tensor, least: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return features in one dtype, `dtype` or wider."""
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or not real.shape[1]:
        raise ValueError(f"features (M, D) and (N, D) are wanted, not {tuple(real.shape)} and {tuple(fake.shape)}")
    if min(len(real), len(fake)) <= least:
        raise ValueError(f"{len(real)} real and {len(fake)} fake points are too few: {least + 1} of each are needed")
    if not (real.isfinite().all() and fake.isfinite().all()):
        raise ValueError("features are not finite")
    dtype = torch.promote_types(torch.promote_types(real.dtype, fake.dtype), dtype)
    return real.to(dtype), fake.to(dtype)
