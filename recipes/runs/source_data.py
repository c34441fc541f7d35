"""The source of a recipe: a function of the images, or another data set, whose record is `source.json` in the run."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sitkit.objectives import Coupling

from ..data.fingerprint import fingerprint
from ..data.images import Split
from ..experiment import slots
from ..experiment.recipe import Recipe
from ..storage.files import read_inside, write_atomic
from ..support.errors import UserError
from ..support.json_toml import read_json

FILE_NAME = "source.json"


def made_of_images(recipe: Recipe, shape: tuple[int, int, int]) -> Coupling | None:
    """Return the function (x, noise, labels) -> source; None if the source is noise or another data set.

    Args:
        recipe: the experiment.
        shape: (C, H, W) of a state.

    Raises:
        UserError: the source refuses its fields or states of this shape, or has another shape.
    """
    if recipe.source is None or slots.is_data_set(recipe.source.target):
        return None
    make: Coupling = recipe.source.build()
    state = torch.zeros(1, *shape)
    try:
        made = make(state, state, torch.zeros(1, dtype=torch.int64)).shape
    except (ValueError, RuntimeError) as error:
        raise UserError(f"source = {recipe.source.kind}: {error}") from error
    if made != state.shape:
        raise UserError(f"source '{recipe.source.kind}' has shape {tuple(made[1:])}, and states have {shape}")
    return make


def observation(make: Coupling, x: Tensor, noise: Tensor, labels: Tensor | None) -> Tensor:
    """Return what the source shows of the images, without its noise: its `observation`, or the source if it has none.

    Args are those of the source.
    """
    observed: Tensor = getattr(make, "observation", make)(x, noise, labels)
    return observed


def open_source(recipe: Recipe, split: Split) -> Split | None:
    """Return the data set that is the source; None if the source is noise or made of the images.

    Args:
        recipe: the experiment.
        split: its data.

    Raises:
        UserError: the data set cannot be loaded, or its states have another shape than those of the data.
    """
    if recipe.source is None or not slots.is_data_set(recipe.source.target):
        return None
    source: Any = recipe.source.build()
    shapes = [" x ".join(map(str, one.training.shape)) for one in (source, split)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"source '{recipe.source.kind}' has states of {shapes[0]}, and data '{recipe.data.kind}' of {shapes[1]}: "
            "give a source of the same shape"
        )
    if not len(source.training):
        raise UserError(f"source '{recipe.source.kind}' has no images")
    found: Split = source
    return found


def record_source(folder: Path, source: Split | None) -> None:
    """Write the number and the fingerprint of the images of another data set, or compare them with those of a run.

    Args:
        folder: of the run.
        source: the data set that is the source, or None.

    Raises:
        UserError: the images have changed since the run was created, or the file is damaged or cannot be written.
    """
    if source is None:
        return
    parts = {"training": source.training, "heldout": source.heldout}
    now = {part: {"number": len(images), "fingerprint": fingerprint(images)} for part, images in parts.items()}
    try:
        if (folder / FILE_NAME).exists():
            before = read_json(read_inside(folder, FILE_NAME))
            if before != now:
                raise UserError(
                    f"{folder} was created with other images of its source: restore them, or give another --out"
                )
        else:
            write_atomic(folder / FILE_NAME, json.dumps(now, indent=2).encode())
    except ValueError as error:
        raise UserError(f"{folder / FILE_NAME} is damaged ({error}): copy it again, or remove it") from error
    except OSError as error:
        raise UserError(f"{folder / FILE_NAME} cannot be read or written: {error.strerror}") from error
