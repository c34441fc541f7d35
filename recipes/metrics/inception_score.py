"""The Inception score of class probabilities."""

import torch
from torch import Tensor


def inception_score(probs: Tensor, splits: int = 10) -> float:
    r"""Return the Inception score (Salimans et al., arXiv 1606.03498, section 4), the mean over consecutive splits.

    $\exp \mathrm{mean}_x\, \mathrm{KL}(p(y \mid x) \,\|\, p(y))$, with natural logarithms, where $p(y)$ is the mean
    over a split: a value from 1 to K. The order of samples matters: split i starts at sample i N // splits.

    Args:
        probs: class probabilities, (N, K).
        splits: the number of splits; ADM uses splits of 5000 images.

    Raises:
        ValueError: the shape is invalid, there are fewer images than splits, or rows are not probabilities, which sum
            to 1 within 1e-3.
    """
    if probs.ndim != 2 or not 1 <= splits <= len(probs):
        raise ValueError(f"expected probabilities (N, K) and 1 to N splits, got {tuple(probs.shape)} and {splits}")
    sums = probs.sum(1, dtype=torch.float64)
    if not ((probs >= 0).all() and ((sums - 1).abs() <= 1e-3).all()):
        raise ValueError(
            f"probabilities must be at least 0, and those of an image must sum to 1, got {_furthest(sums)}"
        )
    scores = []
    for split in range(splits):
        p = probs[split * len(probs) // splits : (split + 1) * len(probs) // splits].double()
        scores.append((torch.xlogy(p, p) - torch.xlogy(p, p.mean(0))).sum(1).mean().exp())
    return float(torch.stack(scores).mean())


def _furthest(sums: Tensor) -> float:
    return float(sums[(sums - 1).abs().argmax()])
