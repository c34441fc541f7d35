"""What `sitkit evaluate` measures: the features, the reference, and where the report goes."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..experiment.components import Component
from ..features import Extractor
from ..storage.work_partition import WorkPartition
from .feature_extraction import FeatureExtraction

STATISTICS = "statistics"
"""The folder of cached features, in that of the report."""


@dataclass(frozen=True, eq=False)
class EvaluationConfig:
    """What is to be measured, and how.

    Args:
        features: the extractor, as a recipe has it.
        reference: what to compare with; None for what the data hold out.
        crop: whether images of a reference folder are cut to the size of samples, or refused.
        batch: images at once.
        device: where to compute.
        out: the folder of the report.
        partition: which of the processes this is.
    """

    features: Component
    reference: Path | None
    crop: bool
    batch: int
    device: torch.device
    out: Path
    partition: WorkPartition = field(default_factory=WorkPartition)

    def extraction(self) -> FeatureExtraction:
        """Return how images become features.

        Raises:
            UserError: a package is missing.
        """
        extractor: Extractor = self.features.build()
        extractor.sha256  # noqa: B018  # weights that cannot be had are told of before anything is drawn
        return FeatureExtraction(
            self.features, extractor, self.batch, self.device, self.partition, self.out / STATISTICS
        )
