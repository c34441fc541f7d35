"""What a run that has not begun needs to know of its data, which may be on another machine."""

from dataclasses import dataclass
from pathlib import Path

from ..data.absent import AbsentImages
from ..experiment.recipe import Recipe
from ..runs.data_record import open_data
from ..support.errors import UserError


@dataclass(frozen=True)
class DataSummary:
    """What a run needs to know of its data.

    Args:
        shape: (C, H, W) of a state.
        classes: how many classes; 0 if there are no labels.
        images: how many images to train on; None if that is not known.
        found: whether the data said so themselves; they may not be on this machine.
    """

    shape: tuple[int, int, int]
    classes: int
    images: int | None
    found: bool = True


STATED = {
    "imagenet256": DataSummary((4, 32, 32), 1000, 1_281_167, found=False),
    "imagenet512": DataSummary((4, 64, 64), 1000, 1_281_167, found=False),
}
"""Data that are usually on another machine, by the last part of `data.path`: latents of ImageNet's training images."""


WITHOUT_DATA = (
    "for a dry run without the data say the shape of a state and the number of classes: "
    "--set 'data={kind=\"absent\", shape=[4, 32, 32], classes=1000}'"
)


def summary_of(recipe: Recipe) -> DataSummary:
    """Return the facts of a recipe's data: as they say themselves, or as `STATED`, if they are not there.

    Of data of the kind `absent` the recipe says shape and classes.

    Raises:
        UserError: the data are not there, and not stated.
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
