"""What a cell's numbers depend on besides its recipe: the images behind its words, and the weights of its extractor."""

from ..data.fingerprint import cache_key, fingerprint
from ..data.images import Images
from ..experiment.recipe import Recipe
from ..support.digests import digest_of
from ..support.errors import UserError
from .feature_extraction import key_of


def content_of(recipe: Recipe) -> list[str] | None:
    """Return digests of held-out and of training images, and a name of the features; None if they cannot be had."""
    features = recipe.evaluation.features
    try:
        split = recipe.data.build()
        return [_digest(split.heldout), _digest(split.training), key_of(features, features.build())]
    except UserError:
        return None


def _digest(images: Images) -> str:
    return digest_of(images.labels, fingerprint(images) or cache_key(images))
