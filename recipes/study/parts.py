"""One part of a study: train a network, or evaluate a cell. Any scheduler can start them, in any process."""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
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
from .grid import Cell, Network, StudyGrid
from .study_folder import StudyFolder

REPORTED = ("mean", "spread", "values", "real")
"""What results have of each metric: mean, standard deviation and values over draws, and the value of real images."""
WITH_GUIDANCE = "as the recipe says"
"""The name, in a report, of the samples with the recipe's guidance."""


@dataclass(frozen=True)
class SamplerEvaluation:
    """The metrics of a sampler, its NFE for a batch, its network rows for a sample, and the seconds it took."""

    numbers: Mapping[str, Mapping[str, Any]]
    calls: int
    rows: int
    seconds: float


def evaluate_sampler(run: Run, recipe: Recipe, config: EvaluationConfig, seed: int, average: str) -> SamplerEvaluation:
    """Evaluate a run with the sampler of a recipe; nothing is written into the run's folder.

    Args:
        run: the run, whose newest checkpoint is sampled.
        recipe: the run's recipe, with another sampler, guidance and evaluation.
        config: what to measure, and the folder of the report.
        seed: the seed of the first draw.
        average: which EMA of the weights.

    Raises:
        UserError: there is no good checkpoint, or it cannot be evaluated.
    """
    start = time.monotonic()
    report = evaluate(run, recipe, config, seed=seed, average=average)
    assert report is not None  # there is one process
    shutil.rmtree(config.out / SAMPLES, ignore_errors=True)  # they could fill the disk; the report shows some
    calls, rows = (report["manifest"][name][WITH_GUIDANCE] for name in ("network_calls", "network_rows_a_sample"))
    return SamplerEvaluation(report["numbers"], calls, rows, time.monotonic() - start)


def compute(key: str, grid: StudyGrid, folder: StudyFolder, device: torch.device, batch: int) -> None:
    """Compute the part of a key unless it is done; wait while another process does. A failure is recorded.

    Raises:
        UserError: the study has no such part, its network is not trained, or it cannot be computed.
    """
    part = grid.networks.get(key) or grid.cells.get(key)
    if part is None:
        raise UserError(f"--only {key}: nothing in this study has that key; `--list` shows them")
    try:
        with folder.locked(part):
            if folder.done(part):
                pass
            elif isinstance(part, Network):
                train(part.recipe, folder.run(part).folder, device)
            else:
                _evaluate_cell(part, folder, device, batch)
        folder.set_failure(key, None)
    except Exception as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        folder.set_failure(key, kind + "; ".join(str(error).splitlines()))
        raise


def _evaluate_cell(cell: Cell, folder: StudyFolder, device: torch.device, batch: int) -> None:
    """Evaluate a cell; `cell.json` is written last.

    Raises:
        UserError: its network is not trained.
    """
    if not folder.done(cell.network):
        raise UserError(f"network {cell.network.key} is not trained: `--only {cell.network.key}` does it")
    run, last = folder.run(cell.network), checkpoints.name(cell.network.recipe.train.steps)
    if run.latest().name != last:
        where = run.checkpoints / last
        raise UserError(f"{where} is damaged, or was trained on: remove {run.folder}, and the network is trained again")
    out = folder.cell(cell)
    out.mkdir(exist_ok=True)
    content = content_of(cell.recipe)
    config = EvaluationConfig(cell.recipe.evaluation.features, None, False, batch, device, out)
    found = evaluate_sampler(run, cell.recipe, config, cell.sampling_seed, cell.average)
    table = {
        "numbers": found.numbers,
        "calls": found.calls,
        "network_rows": found.rows,
        "seconds": found.seconds,
        "content": content,
    }
    write_atomic(out / "cell.json", json.dumps(table, indent=2).encode())
