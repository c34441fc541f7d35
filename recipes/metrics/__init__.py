"""Metrics that compare samples with data, in float64, on features of images from any extractor.

The names of the literature belong to one extractor each: the Frechet distance of Inception's pool features is FID.
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
