"""Load a trained run in Python, and sample from it: `sitkit.recipes.load_run`, `sitkit.recipes.sample`."""

from pathlib import Path

import torch
from torch import Tensor

from ..experiment.changes import DATA_PATHS, SAMPLING, change_trained
from ..experiment.load_recipe import Settings, pairs_of, trust_of
from ..network.device import device_of
from ..runs.run import Run
from .labels import Classes
from .trained_run import TrainedRun


def load_run(
    folder: str | Path,
    settings: Settings = (),
    *,
    sampler: str | Path | None = None,
    ema: str = "ema",
    device: str | torch.device = "auto",
    trust: bool = False,
) -> TrainedRun:
    """Return a trained run, to use its network or to sample from it.

    Args:
        folder: the folder of the run.
        settings: values over the recipe's, of its sampler, guidance, evaluation and compute, or the paths of its data.
        sampler: the name of a packaged sampler or a file of a sampler and guidance, as `--sampler` takes them;
            settings override it.
        ema: the EMA weights to use.
        device: `auto`, or the name of a device.
        trust: whether code outside of sitkit that the files of the run name may run.

    Raises:
        UserError: there is no run, a setting cannot be changed or is not valid, or the device cannot be used.
    """
    pairs = pairs_of(settings)
    run = Run.find(Path(folder))
    recipe = change_trained(
        run.recipe(trust_of(trust, pairs)),
        pairs,
        (*SAMPLING, "evaluation", *DATA_PATHS),
        sampler=sampler,
        trust=trust_of(trust),
    )
    return TrainedRun(run, recipe, device_of(str(device)), ema)


def as_run(run: TrainedRun | str | Path) -> TrainedRun:
    """Return a run that is given itself or by its folder."""
    return run if isinstance(run, TrainedRun) else load_run(run)


def sample(
    run: TrainedRun | str | Path, n: int, *, seed: int = 0, labels: Classes | None = None, batch: int = 256
) -> Tensor:
    """Return n samples of a run as images, (n, C, H, W) uint8: see `TrainedRun.sample`."""
    return as_run(run).sample(n, seed=seed, labels=labels, batch=batch)
