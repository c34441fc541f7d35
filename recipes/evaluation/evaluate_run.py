"""Evaluate in Python: `sitkit.recipes.evaluate`."""

from pathlib import Path
from typing import Any

from ..sampling.load_run import as_run
from ..sampling.trained_run import TrainedRun
from ..support.limits import MOST_ROWS, MOST_SEED, whole_number
from .config import EvaluationConfig
from .evaluate import evaluate as evaluate_run


def evaluate(
    run: TrainedRun | str | Path,
    *,
    reference: str | Path | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    batch: int = 256,
    crop: bool = False,
) -> dict[str, Any]:
    """Evaluate samples of a run, write `report.json` and `report.html`, and return the report.

    It is `sitkit evaluate`: samples and features are stored in `out`, and are used again.

    Args:
        run: a run, or its folder.
        reference: images, samples or statistics to compare with; None for the held-out images of the recipe's data.
        out: the folder of the report; None for the folder of the run.
        seed: the seed of the first set of samples. The other sets have the next seeds.
        batch: how many images at once.
        crop: whether images of a folder that is the reference are cropped to the size of samples.

    Raises:
        UserError: seed or batch is not a whole number, there is no complete checkpoint, nothing to compare with, or a
            package is missing.
    """
    trained = as_run(run)
    config = EvaluationConfig(
        trained.recipe.evaluation.features,
        None if reference is None else Path(reference),
        crop,
        whole_number("batch", batch, 1, MOST_ROWS),
        trained.device,
        trained.folder if out is None else Path(out),
    )
    report = evaluate_run(
        trained.run, trained.recipe, config, seed=whole_number("seed", seed, 0, MOST_SEED), average=trained.ema
    )
    assert report is not None  # as this is the only process
    return report
