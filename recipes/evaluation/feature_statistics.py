"""Statistics of the features of a set of images: everything that metrics need, in bounded memory."""

import hashlib
import io
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from ..features import Features
from ..metrics import Moments, inception_score
from ..storage.arrays import NpzReader
from ..storage.files import write_atomic
from ..storage.npy_header import FLOAT, INTEGER, REAL, ArrayError
from ..support.errors import UserError
from ..support.random_streams import Permutation

ABOUT = "about"
INCEPTION_SPLIT = 5000
"""Images per split of the Inception score, whose mean over splits is reported, as in ADM."""

Gaussian = tuple[Tensor, Tensor]
"""Mean (D,) and covariance (D, D), float64."""


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Statistics of the features of images.

    Args:
        count: the number of images; None if a file does not have it.
        pooled: mean and covariance of the pooled features.
        spatial: mean and covariance of the spatial features, for sFID.
        features: stored pooled features of some images, (K, D) float32, for precision, recall and KID.
        numbers: (K,) int64, the indices of these images.
        labels: (K,) int64, their classes, if they have any.
        halves: mean and covariance of the pooled features of each half of the images, to estimate the bias of a metric.
        score: the Inception score, if the features have class probabilities.
        sha256: of the crc32 of the pixels, block by block; or the one stored in a file of statistics.
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


def compute_statistics(
    blocks: Iterable[tuple[Features, int]], count: int, labels: Tensor | None, keep: int
) -> FeatureStatistics:
    """Return the statistics of images from blocks of features.

    The first half of a block belongs to one half of the images, and its second half to the other. Features are stored
    for randomly chosen images. The choice depends on `count` only.

    Args:
        blocks: features of each block, with the crc32 of its pixels.
        count: the number of images.
        labels: (N,) int64, or None.
        keep: the largest number of images whose features are stored.

    Raises:
        UserError: there are fewer than two images, or features that are not finite.
    """
    if count < 2:
        raise UserError(f"statistics need two images or more, got {count}")
    stored = torch.sort(Permutation(0, count)(torch.arange(min(keep, count)))).values
    chosen = torch.zeros(count, dtype=torch.bool).index_fill(0, stored, True)
    digest, score = hashlib.sha256(), _InceptionScore()
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
        raise UserError(f"features of images {start} and following: {error}") from error
    assert halves is not None
    whole = Moments(len(halves[0].mean))
    for half in halves:
        whole.merge(half)
    return FeatureStatistics(
        count=count,
        pooled=_gaussian(whole),
        spatial=_gaussian(spatial) if spatial else None,
        features=torch.cat(features),
        numbers=stored,
        labels=None if labels is None else labels[stored],
        halves=(_gaussian(halves[0]), _gaussian(halves[1])) if min(half.count for half in halves) > 1 else None,
        score=score.mean(),
        sha256=digest.hexdigest(),
    )


class _InceptionScore:
    """The Inception score of class probabilities that are added batch by batch: the mean over full splits."""

    def __init__(self) -> None:
        self.waiting: list[Tensor] = []
        self.scores: list[float] = []

    def update(self, probs: Tensor) -> None:
        """Add probabilities, (B, K)."""
        self.waiting.append(probs)
        while sum(map(len, self.waiting)) >= INCEPTION_SPLIT:
            whole = torch.cat(self.waiting)
            self.scores.append(inception_score(whole[:INCEPTION_SPLIT], 1))
            self.waiting = [whole[INCEPTION_SPLIT:]]

    def mean(self) -> float | None:
        """Return the mean over full splits, or the score of all images if none is full; None if there are no images."""
        if self.scores:
            return sum(self.scores) / len(self.scores)
        return inception_score(torch.cat(self.waiting), 1) if self.waiting else None


def _gaussian(moments: Moments) -> Gaussian:
    return moments.mean, moments.covariance


def save_statistics(statistics: FeatureStatistics, about: dict[str, Any], file: Path) -> None:
    """Write statistics as an npz with the names of ADM's references: `mu`, `sigma`, `mu_s`, `sigma_s`.

    Further arrays are `features`, `numbers` and `labels` of the stored images, `score`, and `about`, a JSON text. The
    halves are not written.

    Raises:
        UserError: the file cannot be written.
    """
    arrays = {"mu": statistics.pooled[0], "sigma": statistics.pooled[1]}
    if statistics.spatial:
        arrays |= {"mu_s": statistics.spatial[0], "sigma_s": statistics.spatial[1]}
    arrays |= {"features": statistics.features, "numbers": statistics.numbers}
    if statistics.labels is not None:
        arrays["labels"] = statistics.labels
    if statistics.score is not None:
        arrays["score"] = torch.tensor(statistics.score, dtype=torch.float64)
    header = about | {"count": statistics.count, "sha256": statistics.sha256}
    content = io.BytesIO()
    np.savez(content, **{name: value.numpy() for name, value in arrays.items()}, about=np.array(json.dumps(header)))  # type: ignore[arg-type]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, content.getvalue())
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from error


def load_statistics(file: Path) -> tuple[FeatureStatistics, dict[str, Any] | None]:
    """Return the statistics in an npz, and its `about`, which ADM's references do not have.

    Raises:
        UserError: the file is damaged, or lacks an array, or an array is not valid.
    """
    try:
        with NpzReader(file) as arrays:
            about = _StatisticsHeader.model_validate_json(arrays.text(ABOUT)) if ABOUT in arrays.names else None
            pooled = _gaussian_in(arrays, "mu", "sigma")
            spatial = _gaussian_in(arrays, "mu_s", "sigma_s") if "mu_s" in arrays.names else None
            numbers, features, labels = _read_features(arrays, len(pooled[0]), about)
            score = float(arrays.read("score", FLOAT, ())) if "score" in arrays.names else None
            if score is not None and not math.isfinite(score):
                raise ArrayError(f"score is {score}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["about", *map(str, first["loc"])])
        raise UserError(f"{file} holds no statistics ({where}: {first['msg']}): copy or compute it again") from error
    except (OSError, ArrayError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{file} holds no statistics mu and sigma ({why}): copy or compute it again") from error
    count, digest = (about.count, about.sha256) if about else (None, "")
    statistics = FeatureStatistics(count, pooled, spatial, features, numbers, labels, None, score, digest)
    return statistics, about.model_dump(exclude_unset=True) if about else None


class _StatisticsHeader(BaseModel):
    """The keys of `about` that are read."""

    model_config = ConfigDict(extra="allow", strict=True)
    count: Annotated[int, Field(ge=2, lt=2**63)] | None = None
    sha256: str = ""
    features: dict[str, Any] = {}
    image: list[int] | None = None


def _gaussian_in(arrays: NpzReader, mean: str, covariance: str) -> Gaussian:
    """Return the arrays `mean` (D,) and `covariance` (D, D).

    Raises:
        ArrayError: they are missing, have other shapes or are not finite, or the second is not a covariance.
    """
    mu = torch.from_numpy(arrays.read(mean, REAL, (None,))).double()
    sigma = torch.from_numpy(arrays.read(covariance, REAL, (len(mu), len(mu)))).double()
    if not len(mu) or not (mu.isfinite().all() and sigma.isfinite().all()):
        raise ArrayError(f"{mean} or {covariance} has numbers that are not finite, or none")
    widths = sigma.diagonal().clamp(min=0).sqrt()
    if (sigma.diagonal() < 0).any() or ((sigma - sigma.T).abs() > 1e-3 * torch.outer(widths, widths)).any():
        raise ArrayError(f"{covariance} is not a covariance: it has negative variances or is not symmetric")
    return mu, sigma


def _read_features(
    arrays: NpzReader, size: int, about: _StatisticsHeader | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the indices (K,), features (K, D) and labels (K,) of the images whose features are stored."""
    if about is None:  # other programs may use these names for other arrays
        return torch.empty(0, dtype=torch.int64), torch.empty(0, size), None
    features = torch.from_numpy(arrays.read("features", FLOAT, (None, size))).float()
    rows = features.shape[:1]
    numbers = torch.from_numpy(arrays.read("numbers", INTEGER, tuple(rows)).astype(np.int64))
    labels = arrays.read("labels", INTEGER, tuple(rows)).astype(np.int64) if "labels" in arrays.names else None
    if not features.isfinite().all():
        raise ArrayError("features are not finite")
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= (about.count or 2**63 - 1)):
        raise ArrayError(f"numbers has indices that are not below the number of images, {about.count}")
    return numbers, features, None if labels is None else torch.from_numpy(labels)
