"""Improved precision and recall of samples and real images in feature space."""

import torch
from torch import Tensor

from .feature_checks import MAX_PAIRS, validate_features


def precision_recall(real: Tensor, fake: Tensor, k: int = 3, *, chunk: int = MAX_PAIRS) -> tuple[float, float]:
    r"""Return improved precision and recall (Kynkaanniemi et al., arXiv 1904.06991, eqs. 1 and 2).

    Precision is the fraction of fake points that lie, for at least one real point $\phi'$, within the distance from
    $\phi'$ to its k-th nearest neighbour among the other real points; recall is the same with the sets exchanged. A
    distance equal to that radius counts as within, and points equal to $\phi'$ are its neighbours, at distance 0.
    Distances are computed from differences, as the faster formula with matmuls gives equal points a distance above 0.

    Args:
        real: features, (M, D); distances are in their dtype or float32, whichever is wider.
        fake: features, (N, D).
        k: the neighbour whose distance is the radius.
        chunk: how many pairs are computed at once; affects memory only.

    Raises:
        ValueError: the shapes are invalid, there are k points or fewer, k < 1, or features are not finite.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    real, fake = validate_features(real, fake, k, torch.float32)
    return _fraction_within(fake, real, k, chunk), _fraction_within(real, fake, k, chunk)


def _fraction_within(x: Tensor, among: Tensor, k: int, chunk: int) -> float:
    rows = max(1, chunk // len(among))
    # The distance of a point to itself is exactly 0, so that its k-th neighbour is at place k + 1 among all points.
    radii = torch.cat(
        [_distances(part, among).topk(k + 1, largest=False).values[:, -1] for part in torch.split(among, rows)]
    )
    within = [(_distances(part, among) <= radii).any(1) for part in torch.split(x, rows)]
    return float(torch.cat(within).double().mean())


def _distances(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
