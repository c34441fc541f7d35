"""The sources that samples are made from, each a function of the seed, the sample's index and its label."""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.fingerprint import fingerprint
from ..data.images import Images, Split
from ..experiment.recipe import Recipe
from ..runs.source_data import made_of_images, observation, open_source
from ..support.errors import UserError
from ..support.random_streams import Stream, noise, uniforms


class SourceBatch(NamedTuple):
    """Sources, (B, C, H, W) float32, and what they show of the images, without their noise."""

    source: Tensor
    observation: Tensor


class SampleSources:
    """The sources of samples of a recipe.

    A source that is made of an image is made of a held-out one, or of a training image if none are held out. The image
    is a random one of the sample's class. The images of another data set are its held-out ones, in the same way. The
    source of a recipe without `source` is noise.

    Args:
        recipe: the experiment.
        split: its data, with their images if the recipe has a source.
        seed: of the sampling.

    Raises:
        UserError: the source does not fit the data, or cannot be loaded.
    """

    def __init__(self, recipe: Recipe, split: Split, seed: int):
        self.seed = seed
        self.shape = split.training.shape
        self.make = made_of_images(recipe, self.shape)
        other = open_source(recipe, split)
        self.labelled = other is None and bool(split.classes)
        self.classes = split.classes
        self.images = None if recipe.source is None else _images(other or split)

    def __call__(self, indices: Tensor, labels: Tensor | None) -> SourceBatch:
        """Return the sources of samples (B,) with labels (B,).

        Raises:
            UserError: there is no image of a class.
        """
        random = noise(self.seed, Stream.START_SOURCE, indices, self.shape)
        if self.images is None:
            return SourceBatch(random, random)
        x = self.states(indices, labels)
        if self.make is None:
            return SourceBatch(x, x)
        return SourceBatch(self.make(x, random, labels), observation(self.make, x, random, labels))

    def states(self, indices: Tensor, labels: Tensor | None) -> Tensor:
        """Return the images of which the sources are made, (B, C, H, W) float32, as states."""
        assert self.images is not None
        flips = torch.zeros(len(indices), dtype=torch.bool)
        latents = partial(noise, self.seed, Stream.START_LATENT, indices)
        return self.images.states(self.numbers(indices, labels), flips, latents)

    def numbers(self, indices: Tensor, labels: Tensor | None) -> Tensor:
        """Return the number of each of these images, (B,) int64."""
        assert self.images is not None
        u = uniforms(self.seed, Stream.START_IMAGE, indices, (1,))[:, 0].double()
        if labels is None or not self.labelled:
            return (u * len(self.images)).long()
        numbers = torch.empty_like(indices)
        for label in torch.unique(labels).tolist():
            members = (self.images.labels == label).nonzero()[:, 0]
            if not len(members):
                raise UserError(f"no image of class '{self.classes[label]}' to make a source of: choose other classes")
            here = labels == label
            numbers[here] = members[(u[here] * len(members)).long()]
        return numbers


def describe_sources(recipe: Recipe, split: Split) -> dict[str, Any]:
    """Return the images that sources of samples are made of, for a manifest; nothing if they are made of noise."""
    if recipe.source is None:
        return {}
    images = _images(open_source(recipe, split) or split)
    return {"source_images": {"number": len(images), "fingerprint": fingerprint(images)}}


def _images(split: Split) -> Images:
    """Return the held-out images, or the training images if there are none.

    Raises:
        UserError: the images are absent.
    """
    return split.heldout if len(split.heldout) else split.training
