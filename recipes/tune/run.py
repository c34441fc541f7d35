"""From the words of `sitkit tune` to what it does, in a folder that one process at a time works in."""

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from ..data.absent import AbsentImages
from ..evaluation.config import EvaluationConfig
from ..experiment.recipe import Recipe
from ..network.build import load_network
from ..runs.data_paths import with_existing_paths
from ..runs.run import Run
from ..sampling.generator import measure_loss_curve
from ..storage.filesystems import lock
from ..support.errors import UserError
from .benchmark import LOG, Bench
from .candidates import read_axes
from .report import SAMPLER, summary, write
from .search import MOST_COMBINATIONS, combinations
from .tune import Task, tune

WORK = "work"
"""Where evaluation works: samples that are being drawn, and features of real images."""


def run_tune(
    run: Run,
    recipe: Recipe,
    over: Sequence[str],
    calls: int,
    out: Path,
    *,
    number: str | None,
    reference: Path | None,
    seed: int,
    batch: int,
    average: str,
    device: torch.device,
    say: Callable[[str], None],
) -> None:
    """Search a sampler for a run, and write what is found.

    Args:
        run: whose newest checkpoint is sampled.
        recipe: its recipe, with the sampler to start from, and the evaluation that is wanted.
        over: what is varied (`read_axes`).
        calls: of the network for a batch, at most.
        out: the folder; what was measured in it before is not measured again.
        number: that is to be best; None for the first.
        reference: what to compare with; None for what the data hold out.
        seed: of the first draw.
        batch: samples at once.
        average: which average of the weights.
        device: where.
        say: is told what is found.

    Raises:
        UserError: there is nothing to measure, it cannot be measured, or the folder cannot be written.
    """
    try:
        split = run.data(recipe, heldout=True)
    except UserError as problem:
        if reference is None:
            raise UserError(f"{problem}; --reference names other images to compare with") from None
        split = run.data(recipe, images=False)
        say(f"{problem}: so the loss is not measured, and no bound is shown of any w")
    record = run.data_record()
    recipe = recipe.model_copy(update={"data": with_existing_paths(recipe.data, record.places if record else {})})
    curve, guided = None, bool(split.classes)
    read_axes(over, recipe, None, guided)  # mistakes are told of before a network is loaded
    if not isinstance(split.training, AbsentImages):
        curve = measure_loss_curve(load_network(recipe, split, run.latest(), device, average), recipe, split)
    task = Task(recipe, read_axes(over, recipe, curve, guided), calls, seed, number)
    with _alone(out):
        config = EvaluationConfig(recipe.evaluation.features, reference, False, batch, device, out / WORK)
        bench = Bench(run, split, config, average, out)
        each = "combinations" if combinations(task.axes) <= MOST_COMBINATIONS else "one key after the other"
        sizes = ", ".join(f"{axis.name}: {len(axis.variants)} values" for axis in task.axes)
        say(f"{sizes}; {each}; draws of each candidate: {len(task.choosing)}; see {out / LOG}")
        tuned = tune(task, bench, curve, say)
        write(tuned, out, shlex.join(["sitkit", *sys.argv[1:]]))
        shutil.rmtree(out / WORK, ignore_errors=True)
    for line in summary(tuned):
        say(line)
    say(f"{out / 'tune.html'}; sitkit sample {run.folder} --sampler {out / SAMPLER}")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Make the folder, and keep other processes out of it."""
    try:
        (out / "candidates").mkdir(parents=True, exist_ok=True)
        file = (out / ".lock").open("a")
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from error
    with file:
        if not lock(file):
            raise UserError(f"{out} is being worked in by another process; wait for it, or give another --out")
        yield
