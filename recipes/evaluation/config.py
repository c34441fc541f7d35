"""The configuration of an evaluation: the features, the reference and the folder of the report."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..experiment.components import Component
from ..features import Extractor
from ..storage.work_partition import WorkPartition
from .feature_extraction import FeatureExtraction

STATISTICS = "statistics"
"""The folder of cached statistics, in the folder of the report."""


@dataclass(frozen=True, eq=False)
class EvaluationConfig:
    """What to compare samples with, and how.

    Args:
        features: the feature extractor, as in a recipe.
        reference: the images or statistics to compare with; None for the held-out images of the data.
        crop: whether images of a reference folder are cropped to the size of samples; otherwise other sizes are
            refused.
        batch: images at once.
        device: where to compute.
        out: the folder of the report.
        partition: the part of the work of this process.
    """

    features: Component
    reference: Path | None
    crop: bool
    batch: int
    device: torch.device
    out: Path
    partition: WorkPartition = field(default_factory=WorkPartition)

    def extraction(self) -> FeatureExtraction:
        """Return the extraction of features.

        Raises:
            UserError: a package is missing.
        """
        extractor: Extractor = self.features.build()
        extractor.sha256  # noqa: B018  # missing weights are reported before samples are generated
        return FeatureExtraction(
            self.features, extractor, self.batch, self.device, self.partition, self.out / STATISTICS
        )
