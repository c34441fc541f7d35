"""By which recipes a run may go on."""

from pathlib import Path

from ..experiment.recipe import Recipe
from ..support.errors import UserError
from ..support.json_toml import differences
from .data_paths import PATH_KEYS

MAY_CHANGE = ("train.steps", "train.patience", "compute.", "checkpoint.", "log.", "grid.", "evaluation.")
"""What may differ when a run goes on: how long it is and what is written down, not what is computed."""


def starts_skipping_unreadable(kept: Recipe, recipe: Recipe) -> bool:
    """Return whether images that are unreadable stopped a run, and are left out by the recipe by which it goes on."""
    was, now = kept.data.fields, recipe.data.fields
    return (getattr(was, "unreadable", ""), getattr(now, "unreadable", "")) == ("stop", "skip")


def check_can_resume(kept: Recipe, recipe: Recipe, folder: Path, *, places: bool, skips: bool) -> None:
    """Raise a problem unless a run can go on with a recipe.

    Args:
        kept: the run's.
        recipe: the one to go on with.
        folder: the run's.
        places: whether its data may lie elsewhere.
        skips: whether unreadable images may be left out from now on: not where a share of all is held out, which would
            be another.

    Raises:
        UserError: something else differs.
    """
    fixed = ("train.steps",) if recipe.optimizer.schedule != "constant" else ()  # lr depends on it from the first step
    keys = differences(kept.model_dump(mode="json"), recipe.model_dump(mode="json"))
    moved = tuple(f"data.{place}" for place in PATH_KEYS) if places else ()
    if skips and getattr(recipe.data.fields, "split", "none") == "none":
        moved += ("data.unreadable",)
    changed = [key for key in keys if key in fixed or not (key in moved or key.startswith(MAY_CHANGE))]
    if changed:
        raise UserError(f"{folder} holds a run of another recipe; give another --out, or undo: {', '.join(changed)}")
