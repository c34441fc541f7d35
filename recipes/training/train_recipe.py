"""Train in Python: `sitkit.recipes.train`."""

from collections.abc import Callable
from pathlib import Path

import torch

from ..experiment.load_recipe import Settings, load_recipe, trust_of
from ..experiment.recipe import Recipe
from ..network.device import device_of
from ..sampling.load_run import load_run
from ..sampling.trained_run import TrainedRun
from .loop import train as train_run


def train(
    recipe: Recipe | str | Path,
    out: str | Path,
    settings: Settings = (),
    *,
    device: str | torch.device = "auto",
    trust: bool = False,
    say: Callable[[str], None] = print,
) -> TrainedRun:
    """Train a recipe in a folder, or resume the run that is there, and return the run.

    Args:
        recipe: a recipe, or what `load_recipe` takes.
        out: the folder of the run.
        settings: values over those of a recipe that is given by name.
        device: `auto`, or the name of a device.
        trust: whether code outside of sitkit that files name may run.
        say: is called with each line of output.

    Raises:
        UserError: the recipe is not valid, the folder holds another run, or losses do not become finite again.
        KeyboardInterrupt: training was interrupted, after it has written a checkpoint; the same call resumes it.
    """
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, settings, trust=trust)
    if isinstance(recipe, Recipe) and settings:
        raise ValueError("settings change a recipe that is given by name: give them to load_recipe")
    train_run(chosen, Path(out), device_of(str(device)), say, trust_of(trust))
    return load_run(out, device=device, trust=True)  # all that its recipe names has been imported
