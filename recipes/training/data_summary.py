"""The shape and size of a recipe's data, for an estimate before training. The data may be on another machine."""

from dataclasses import dataclass
from pathlib import Path

from ..data.absent import AbsentImages
from ..experiment.recipe import Recipe
from ..runs.data_record import open_data
from ..support.errors import UserError


@dataclass(frozen=True)
class DataSummary:
    """The shape and size of data.

    Args:
        shape: (C, H, W) of a state.
        classes: the number of classes; 0 if there are no labels.
        images: the number of training images; None if it is not known.
        found: whether the data are on this machine, and were read.
    """

    shape: tuple[int, int, int]
    classes: int
    images: int | None
    found: bool = True


STATED = {
    "imagenet256": DataSummary((4, 32, 32), 1000, 1_281_167, found=False),
    "imagenet512": DataSummary((4, 64, 64), 1000, 1_281_167, found=False),
}
"""Latents of ImageNet's training images, by the last part of `data.path`. They are often on another machine."""


WITHOUT_DATA = (
    "for a dry run without the data give the shape of a state and the number of classes: "
    "--set 'data={kind=\"absent\", shape=[4, 32, 32], classes=1000}'"
)


def summary_of(recipe: Recipe) -> DataSummary:
    """Return the summary of a recipe's data: of the data themselves, or that of `STATED` if they are not here.

    For data of the kind `absent`, shape and classes are those of the recipe.

    Raises:
        UserError: the data are not here, and `STATED` has no summary of them.
    """
    try:
        split = open_data(recipe.data, None)
    except UserError as problem:
        path = str(getattr(recipe.data.fields, "path", ""))
        if recipe.data.kind == "latents" and Path(path).name in STATED:
            return STATED[Path(path).name]
        raise UserError(f"{problem}; {WITHOUT_DATA}") from None
    images = None if isinstance(split.training, AbsentImages) else len(split.training)
    return DataSummary(split.training.shape, len(split.classes), images)
