"""One piece of a study: a network trained, or a cell measured. Any scheduler can start them, in any process."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from ..evaluation.config import EvaluationConfig
from ..evaluation.data_digests import content_of
from ..evaluation.evaluate import SAMPLES, evaluate
from ..experiment.recipe import Recipe
from ..runs.run import Run
from ..storage import checkpoints
from ..storage.files import write_atomic
from ..support.errors import UserError
from ..training.loop import train
from .folder import Folder
from .layout import Cell, Layout, Model

AS_ASKED = "as the recipe says"
"""What evaluation calls the samples of the recipe's own guidance."""


def do(key: str, layout: Layout, folder: Folder, device: torch.device, batch: int) -> None:
    """Do what has that key, unless it is done; wait while another process is at it. A failure is kept in the folder.

    Raises:
        UserError: nothing in the study has that key, its network is not trained, or it cannot be done.
    """
    one = layout.models.get(key) or layout.cells.get(key)
    if one is None:
        raise UserError(f"--only {key}: nothing in this study has that key; `--list` shows them")
    try:
        with folder.alone(one):
            if folder.done(one):
                pass
            elif isinstance(one, Model):
                train(one.recipe, folder.run(one).folder, device)
            else:
                measure_cell(one, folder, device, batch)
        folder.fail(key, None)
    except Exception as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        folder.fail(key, kind + "; ".join(str(error).splitlines()))
        raise


def measure_cell(cell: Cell, folder: Folder, device: torch.device, batch: int) -> None:
    """Measure a cell, and write `cell.json`, last of all.

    Raises:
        UserError: its network is not trained.
    """
    if not folder.done(cell.model):
        raise UserError(f"network {cell.model.key} is not trained: `--only {cell.model.key}` does it")
    run, last = folder.run(cell.model), checkpoints.name(cell.model.recipe.train.steps)
    if run.latest().name != last:
        where = run.checkpoints / last
        raise UserError(f"{where} is damaged, or was trained on: remove {run.folder}, and the network is trained again")
    start = time.monotonic()
    out = folder.cell(cell)
    out.mkdir(exist_ok=True)
    content = content_of(cell.recipe)
    report = measure(
        run,
        cell.recipe,
        device,
        out,
        seed=cell.sampling_seed,
        batch=batch,
        average=cell.average,
    )
    found = {
        "numbers": report["numbers"],
        "calls": report["manifest"]["network_calls"][AS_ASKED],
        "network_rows": report["manifest"]["network_rows_a_sample"][AS_ASKED],
        "seconds": time.monotonic() - start,
        "content": content,
    }
    shutil.rmtree(out / SAMPLES, ignore_errors=True)  # of large images they would fill the disk; the report shows some
    write_atomic(out / "cell.json", json.dumps(found, indent=2).encode())


def measure(
    run: Run, recipe: Recipe, device: torch.device, out: Path, *, seed: int, batch: int, average: str
) -> dict[str, Any]:
    """Measure a run with another sampler, and return the report, which is written into the folder `out`.

    Args:
        run: whose newest checkpoint is measured; nothing is written into its folder.
        recipe: the run's, with the sampler, guidance and evaluation that are wanted.
        device: where to sample.
        out: a folder.
        seed: of the first draw.
        batch: samples at once.
        average: which average of the weights.

    Raises:
        UserError: there is no good checkpoint, or it cannot be measured.
    """
    config = EvaluationConfig(recipe.evaluation.features, None, False, batch, device, out)
    report = evaluate(run, recipe, config, seed=seed, average=average)
    assert report is not None  # there is one process
    return report
