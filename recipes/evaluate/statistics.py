"""What is known of a set of images by their features: all that its numbers need, in memory that is bounded."""

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..blocks import BROKEN
from ..features import Features
from ..files import write_whole
from ..metrics import Moments, inception_score
from ..problem import Problem
from ..randomness import Order

ABOUT = "about"
SCORED_TOGETHER = 5000
"""Images of which ADM takes an Inception score, whose mean it reports."""

Gaussian = tuple[Tensor, Tensor]
"""Mean (D,) and covariance (D, D), float64."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """What is known of images.

    Args:
        count: how many there were; None if a file does not say.
        pooled: mean and covariance of their pooled features.
        spatial: those of their spatial features, of which sFID is made.
        features: pooled features of some of them, (K, D) float32, to find neighbours among.
        numbers: (K,) int64, which images these are.
        labels: (K,) int64, their classes, if they have any.
        halves: mean and covariance of the pooled features of each half of the images, to see how numbers depend on how
            many there are.
        score: the Inception score, if features have probabilities.
        sha256: of the crc32 of the pixels, block by block; of a file of statistics, its own.
    """

    count: int | None
    pooled: Gaussian
    spatial: Gaussian | None
    features: Tensor
    numbers: Tensor
    labels: Tensor | None
    halves: tuple[Gaussian, Gaussian] | None
    score: float | None
    sha256: str


def gather(blocks: Iterable[tuple[Features, int]], count: int, labels: Tensor | None, keep: int) -> Statistics:
    """Return the statistics of images by their features, which come block by block, with the crc32 of the pixels.

    A block's first half belongs to one half of the images, and its second half to the other. The features that are kept
    are of images chosen at random, by number, and the same for every set of so many images.

    Args:
        blocks: features, and crc32 of the pixels.
        count: how many images there are.
        labels: (N,) int64, or None.
        keep: of how many images features are kept, at most.

    Raises:
        Problem: there are fewer than two images, or features that are not finite.
    """
    if count < 2:
        raise Problem(f"statistics take two images or more, not {count}")
    kept = torch.sort(Order(0, count)(torch.arange(min(keep, count)))).values
    chosen = torch.zeros(count, dtype=torch.bool).index_fill(0, kept, True)
    digest, score = hashlib.sha256(), _Score()
    halves: tuple[Moments, Moments] | None = None
    spatial: Moments | None = None
    features, start = [], 0
    try:
        for found, crc in blocks:
            halves = halves or (Moments(found.pooled.shape[1]), Moments(found.pooled.shape[1]))
            for half, part in zip(halves, torch.tensor_split(found.pooled, 2), strict=True):
                half.update(part)
            if found.spatial is not None:
                spatial = spatial or Moments(found.spatial.shape[1])
                spatial.update(found.spatial)
            if found.probs is not None:
                score.update(found.probs)
            features.append(found.pooled[chosen[start : start + len(found.pooled)]])
            digest.update(crc.to_bytes(4, "little"))
            start += len(found.pooled)
    except ValueError as error:
        raise Problem(f"features of images {start} and following: {error}") from error
    assert halves is not None
    whole = Moments(len(halves[0].mean))
    for half in halves:
        whole.merge(half)
    return Statistics(
        count=count,
        pooled=_gaussian(whole),
        spatial=_gaussian(spatial) if spatial else None,
        features=torch.cat(features),
        numbers=kept,
        labels=None if labels is None else labels[kept],
        halves=(_gaussian(halves[0]), _gaussian(halves[1])) if min(half.count for half in halves) > 1 else None,
        score=score.mean(),
        sha256=digest.hexdigest(),
    )


class _Score:
    """The Inception score of probabilities that come batch by batch: the mean over splits, as they are full."""

    def __init__(self) -> None:
        self.waiting: list[Tensor] = []
        self.scores: list[float] = []

    def update(self, probs: Tensor) -> None:
        """Add probabilities, (B, K)."""
        self.waiting.append(probs)
        while sum(map(len, self.waiting)) >= SCORED_TOGETHER:
            whole = torch.cat(self.waiting)
            self.scores.append(inception_score(whole[:SCORED_TOGETHER], 1))
            self.waiting = [whole[SCORED_TOGETHER:]]

    def mean(self) -> float | None:
        """Return the mean over full splits, or the score of all images if they fill none; None if there are none."""
        if self.scores:
            return sum(self.scores) / len(self.scores)
        return inception_score(torch.cat(self.waiting), 1) if self.waiting else None


def _gaussian(moments: Moments) -> Gaussian:
    return moments.mean, moments.covariance


def save(statistics: Statistics, about: dict[str, Any], file: Path) -> None:
    """Write statistics as an npz, with the names that ADM's references have: `mu`, `sigma`, `mu_s`, `sigma_s`.

    Besides, `features`, `numbers` and `labels` of the images that are kept, `score`, and `about`, JSON; not the halves.

    Raises:
        Problem: the file cannot be written.
    """
    arrays = {"mu": statistics.pooled[0], "sigma": statistics.pooled[1]}
    if statistics.spatial:
        arrays |= {"mu_s": statistics.spatial[0], "sigma_s": statistics.spatial[1]}
    arrays |= {"features": statistics.features, "numbers": statistics.numbers}
    if statistics.labels is not None:
        arrays["labels"] = statistics.labels
    if statistics.score is not None:
        arrays["score"] = torch.tensor(statistics.score, dtype=torch.float64)
    said = about | {"count": statistics.count, "sha256": statistics.sha256}
    content = io.BytesIO()
    np.savez(content, **{name: value.numpy() for name, value in arrays.items()}, about=np.array(json.dumps(said)))  # type: ignore[arg-type]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, content.getvalue())
    except OSError as error:
        raise Problem(f"{file} cannot be written: {error.strerror}") from error


def load(file: Path) -> tuple[Statistics, dict[str, Any] | None]:
    """Return the statistics in an npz, and what it says of itself: ADM's references say nothing.

    Raises:
        Problem: the file is damaged, has no such arrays, or numbers that are not finite.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            names = [name for name in arrays.files if name not in ("arr_0", ABOUT)]
            found = {name: torch.from_numpy(arrays[name]) for name in names}
            about = json.loads(str(arrays[ABOUT])) if ABOUT in arrays.files else None
        pooled = _checked(file, found, "mu", "sigma")
        spatial = _checked(file, found, "mu_s", "sigma_s") if "mu_s" in found else None
        size = len(pooled[0])
        features = found.get("features", torch.empty(0, size))
        numbers = found.get("numbers", torch.empty(0, dtype=torch.int64))
        if features.shape != (len(numbers), size) or not features.isfinite().all():
            raise Problem(f"{file}: features are {tuple(features.shape)}, or not finite: make it anew")
        count, digest = (about or {}).get("count"), (about or {}).get("sha256", "")
        labels = found.get("labels") if about else None
        score = float(found["score"]) if "score" in found else None
    except (*BROKEN, TypeError) as error:  # arrays of text, too
        raise Problem(f"{file} holds no statistics mu and sigma ({error}): copy or make it anew") from error
    return Statistics(count, pooled, spatial, features, numbers, labels, None, score, digest), about


def _checked(file: Path, found: dict[str, Tensor], mean: str, covariance: str) -> Gaussian:
    mu, sigma = found[mean].double(), found[covariance].double()
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise Problem(
            f"{file}: {mean} and {covariance} are {tuple(mu.shape)} and {tuple(sigma.shape)}, not (D,), (D, D)"
        )
    if not (mu.isfinite().all() and sigma.isfinite().all()):
        raise Problem(f"{file}: {mean} or {covariance} has numbers that are not finite: make or copy it anew")
    return mu, sigma
