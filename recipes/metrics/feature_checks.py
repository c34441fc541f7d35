"""Input checks shared by the metrics of two sets of features."""

import torch
from torch import Tensor

MAX_PAIRS = 2**22
"""The default number of pairs of points that are compared at once: tens of megabytes."""


def validate_features(real: Tensor, fake: Tensor, least: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Check two sets of features, and convert them to one dtype, `dtype` or wider.

    Raises:
        ValueError: their shapes are invalid, either has no more than `least` points, or values are not finite.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or not real.shape[1]:
        raise ValueError(f"expected features (M, D) and (N, D), got {tuple(real.shape)} and {tuple(fake.shape)}")
    if min(len(real), len(fake)) <= least:
        raise ValueError(
            f"{len(real)} real and {len(fake)} fake points are too few: at least {least + 1} of each are needed"
        )
    if not (real.isfinite().all() and fake.isfinite().all()):
        raise ValueError("features are not finite")
    dtype = torch.promote_types(torch.promote_types(real.dtype, fake.dtype), dtype)
    return real.to(dtype), fake.to(dtype)
