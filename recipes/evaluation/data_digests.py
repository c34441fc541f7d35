"""Digests of what metrics depend on besides the recipe: the images, and the weights of the feature extractor."""

from ..data.fingerprint import cache_key, fingerprint
from ..data.images import Images
from ..experiment.recipe import Recipe
from ..support.digests import digest_of
from ..support.errors import UserError
from .feature_extraction import key_of


def content_of(recipe: Recipe) -> list[str] | None:
    """Return digests of held-out and training images, and the key of the features; None if they are not available."""
    features = recipe.evaluation.features
    try:
        split = recipe.data.build()
        return [_digest(split.heldout), _digest(split.training), key_of(features, features.build())]
    except UserError:
        return None


def _digest(images: Images) -> str:
    return digest_of(images.labels, fingerprint(images) or cache_key(images))
