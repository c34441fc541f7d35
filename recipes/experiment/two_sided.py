"""Checks of a two-sided path, and of the sampler for it, that need the path itself."""

from typing import Any

import torch

from sitkit.interpolants import check

from ..support.errors import UserError
from .recipe import Recipe


def check_bridge(recipe: Recipe) -> None:
    """Check the path of a recipe, if it is a custom one, and that it has noise if an SDE needs it.

    Raises:
        UserError: the path is not valid, or its score is infinite at all times.
    """
    path: Any = recipe.path.build()
    if ":" in recipe.path.kind:
        try:
            check(path)
        except ValueError as error:
            raise UserError(f"path = {recipe.path.kind}: {error}") from error
    if recipe.sampler.kind == "sde" and float(path.gamma(torch.tensor(0.5))) == 0:
        raise UserError(f"path = {recipe.path.kind}: without noise there is no SDE: set sampler.kind = 'ode'")
