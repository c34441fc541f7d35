"""Metrics that compare samples with data, computed in float64 from the features of any extractor.

Names in the literature refer to one extractor each: FID is the Frechet distance of Inception's pooled features.
"""

from .energy import energy_distance as energy_distance
from .frechet import frechet_distance as frechet_distance
from .frechet import moments as moments
from .inception_score import inception_score as inception_score
from .kernel import kernel_distance as kernel_distance
from .neighbours import nearer_share as nearer_share
from .neighbours import nearest as nearest
from .precision_recall import precision_recall as precision_recall
from .streaming import Moments as Moments
