"""`sitkit tune`: read the options, search in a folder that one process at a time uses, and write the results."""

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
from .benchmark import LOG, SamplerBenchmark
from .candidates import read_axes
from .grid_search import MOST_COMBINATIONS, combinations
from .report import SAMPLER, summary, write
from .sampler_search import SamplerSearch, SearchTask

WORK = "work"
"""The folder of temporary files of evaluations."""


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
    """Search a sampler for a run, and write the results.

    Args:
        run: the run, whose newest checkpoint is sampled.
        recipe: its recipe, with the sampler to start from, and the evaluation.
        over: what is varied (`read_axes`).
        calls: the most NFE of a batch.
        out: the folder; what is stored in it is not measured again.
        number: the metric to optimize; None for the first.
        reference: the images to compare with; None for the held-out images.
        seed: the seed of the first draw.
        batch: the number of samples at once.
        average: which EMA of the weights.
        device: where to compute.
        say: reports results.

    Raises:
        UserError: there is nothing to measure, it cannot be measured, or the folder cannot be written.
    """
    if recipe.two_sided or recipe.source:
        raise UserError(
            f"{run.folder}: `sitkit tune` searches samplers of paths from noise without a source: compare samplers by "
            "`sitkit study` or `sitkit evaluate --set sampler...`"
        )
    try:
        split = run.data(recipe, heldout=True)
    except UserError as problem:
        if reference is None:
            raise UserError(f"{problem}; or set other images to compare with by --reference") from None
        split = run.data(recipe, images=False)
        say(f"{problem}: so the loss is not measured, and there are no bounds of w")
    record = run.data_record()
    recipe = recipe.model_copy(update={"data": with_existing_paths(recipe.data, record.places if record else {})})
    curve, guided = None, bool(split.classes)
    read_axes(over, recipe, None, guided)  # errors are found before a network is loaded
    if not isinstance(split.training, AbsentImages):
        curve = measure_loss_curve(load_network(recipe, split, run.latest(), device, average), recipe, split)
    task = SearchTask(recipe, read_axes(over, recipe, curve, guided), calls, seed, number)
    with _locked(out):
        config = EvaluationConfig(recipe.evaluation.features, reference, False, batch, device, out / WORK)
        benchmark = SamplerBenchmark(run, split, config, average, out)
        each = "combinations" if combinations(task.axes) <= MOST_COMBINATIONS else "one key after the other"
        sizes = ", ".join(f"{axis.name}: {len(axis.variants)} values" for axis in task.axes)
        say(f"{sizes}; {each}; draws of each candidate: {len(task.choosing)}; see {out / LOG}")
        result = SamplerSearch(task, benchmark, say).run(curve)
        write(result, out, shlex.join(["sitkit", *sys.argv[1:]]))
        shutil.rmtree(out / WORK, ignore_errors=True)
    for line in summary(result):
        say(line)
    say(f"{out / 'tune.html'}; sitkit sample {run.folder} --sampler {out / SAMPLER}")


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Create the folder, and lock it against other processes."""
    try:
        (out / "candidates").mkdir(parents=True, exist_ok=True)
        file = (out / ".lock").open("a")
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from error
    with file:
        if not lock(file):
            raise UserError(f"{out} is in use by another process; wait for it, or give another --out")
        yield
