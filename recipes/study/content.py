"""What a cell's numbers depend on besides its recipe: the images behind its words, and the weights of its extractor."""

from ..data.digests import of_parts
from ..data.fingerprint import fingerprint, state
from ..data.images import Images
from ..evaluate.extraction import key_of
from ..problem import Problem
from ..recipe import Recipe


def content_of(recipe: Recipe) -> list[str] | None:
    """Return digests of held-out and of training images, and a name of the features; None if they cannot be had."""
    features = recipe.evaluation.features
    try:
        split = recipe.data.build()
        return [_digest(split.heldout), _digest(split.training), key_of(features, features.build())]
    except Problem:
        return None


def _digest(images: Images) -> str:
    return of_parts(images.labels, fingerprint(images) or state(images))
