"""Changes to the recipe of a trained run: its sampler, guidance, evaluation, and the paths of its data."""

from collections.abc import Sequence
from pathlib import Path

from ..support.errors import UserError
from ..support.trust import TRUST_NOTHING, Trust
from .overrides import with_settings
from .recipe import Recipe
from .sampler_files import with_sampler
from .settings import trust_in_settings

SAMPLING = ("sampler", "guidance", "compute")
"""The sections of a recipe that may change after training."""
DATA_PATHS = ("data.path", "data.heldout", "data.vae")
"""The keys that say where data are now; the data are compared with those that the run was created with."""


def change_trained(
    recipe: Recipe,
    settings: Sequence[str],
    allowed: Sequence[str],
    *,
    of: str = "a trained run",
    sampler: str | Path | None = None,
    trust: Trust = TRUST_NOTHING,
) -> Recipe:
    """Return a recipe with a sampler by name or from a file, then with settings of which only some keys are allowed.

    Args:
        recipe: the recipe.
        settings: `key=value`, as `--set` takes them. What they name is imported.
        allowed: the keys, or the sections, that may be set.
        of: what the recipe describes, for the message.
        sampler: the name of a packaged sampler, or a file of a sampler and guidance (`sampler_files`).
        trust: what that file may name that is not part of sitkit.

    Raises:
        UserError: a setting is not allowed or not valid, or the file does not fit the recipe.
    """
    for setting in settings:
        key = setting.partition("=")[0]
        if key not in allowed and key.partition(".")[0] not in allowed:
            raise UserError(f"--set {setting}: of {of} only {', '.join(allowed)} can be changed")
    if sampler is not None:
        recipe = with_sampler(recipe, sampler, trust)
    return with_settings(recipe, settings, trust_in_settings(settings))
