"""Checks whether a run can be resumed with a recipe that differs from its stored one."""

from pathlib import Path

from ..experiment.recipe import Recipe
from ..support.errors import UserError
from ..support.json_toml import differences
from .data_paths import PATH_KEYS

MAY_CHANGE = ("train.steps", "train.patience", "compute.", "checkpoint.", "log.", "grid.", "evaluation.")
"""Keys that may change when a run is resumed: its length, and what is logged and saved, but not what is computed."""


def starts_skipping_unreadable(stored: Recipe, recipe: Recipe) -> bool:
    """Return whether unreadable images are errors by the stored recipe, and are left out by the new one."""
    before, now = stored.data.fields, recipe.data.fields
    return (getattr(before, "unreadable", ""), getattr(now, "unreadable", "")) == ("stop", "skip")


def check_can_resume(stored: Recipe, recipe: Recipe, folder: Path, *, paths: bool, skips: bool) -> None:
    """Check that a run can be resumed with a recipe.

    Args:
        stored: the recipe in the run's folder.
        recipe: the recipe to resume with.
        folder: the run's folder, for the message.
        paths: whether the paths of data may change.
        skips: whether unreadable images may be left out from now on. This is not allowed if a fraction of all images
            is held out, because the held-out images would change.

    Raises:
        UserError: a key differs that may not change.
    """
    fixed = ("train.steps",) if recipe.optimizer.schedule != "constant" else ()  # lr depends on it from the first step
    keys = differences(stored.model_dump(mode="json"), recipe.model_dump(mode="json"))
    allowed = tuple(f"data.{key}" for key in PATH_KEYS) if paths else ()
    if skips and getattr(recipe.data.fields, "split", "none") == "none":
        allowed += ("data.unreadable",)
    changed = [key for key in keys if key in fixed or not (key in allowed or key.startswith(MAY_CHANGE))]
    if changed:
        raise UserError(f"{folder} holds a run of another recipe; give another --out, or undo: {', '.join(changed)}")
