"""The pictures of a run: a few samples of every class, always from the same noise, drawn by all processes together."""

import sys
from pathlib import Path

import torch
from torch import Tensor

from ..data.images import Split
from ..experiment.recipe import Recipe
from ..runs.run import Run
from ..sampling.generator import NonFiniteError, SampleGenerator
from ..sampling.image_grid import label_grid, save_picture
from ..storage import checkpoints
from .metrics_logger import MetricsLogger
from .process_group import ProcessGroup
from .state import TrainingState

ROWS, COLUMNS = 8, 10


def is_due(step: int, recipe: Recipe) -> bool:
    """Whether there is a grid after a step."""
    return step > 0 and (step == recipe.train.steps or step % recipe.grid.every == 0)


def grid_file(run: Run, step: int) -> Path:
    """Return the file of the grid after a step."""
    return run.folder / "grids" / f"{checkpoints.name(step)}.png"


def save_grid(state: TrainingState, recipe: Recipe, split: Split, group: ProcessGroup, journal: MetricsLogger) -> None:
    """Draw the grid of a state, all processes together, and write it, if this is the one that writes."""
    columns = min(COLUMNS, max(1, len(split.classes)))
    labels = torch.arange(ROWS * columns) % columns if split.classes else None
    try:
        pixels = draw_rows(
            SampleGenerator(state.average, recipe, split, recipe.seed), columns, labels, group, state.sharded
        )
    except NonFiniteError as problem:  # which is the sampler's, and need not stop training
        if group.is_main:
            print(f"no picture after step {state.step}: {problem}", file=sys.stderr)
        return
    if group.is_main:
        file = grid_file(journal.run, state.step)
        save_picture(label_grid(pixels, labels, split.classes), file)
        journal.picture(file, state.step)


def draw_rows(
    drawing: SampleGenerator, columns: int, labels: Tensor | None, group: ProcessGroup, sharded: bool
) -> Tensor:
    """Return the images of a grid, (ROWS * columns, C, H, W) uint8, on every process.

    Each process generates every `world_size`-th row, or all rows if the weights are sharded, as each network call then
    gathers them on all processes. Rows are generated one by one, so the images do not depend on the number of
    processes, not even by rounding.

    Args:
        drawing: what draws.
        columns: the images of a row.
        labels: (ROWS * columns,), or None.
        group: the processes, all of which call this.
        sharded: whether weights are.

    Raises:
        NonFiniteError: on every process, if an image of any of them has diverged.
    """
    own = range(ROWS) if sharded else range(group.rank, ROWS, group.world_size)
    drawn: dict[int, Tensor | NonFiniteError] = {}
    for row in own:
        numbers = torch.arange(row * columns, (row + 1) * columns)
        try:
            drawn[row] = drawing(numbers, None if labels is None else labels[numbers]).pixels
        except NonFiniteError as problem:
            drawn[row] = problem
    together = {row: one for part in ([drawn] if sharded else group.gather(drawn)) for row, one in part.items()}
    rows = []
    for row in range(ROWS):
        one = together[row]
        if isinstance(one, NonFiniteError):
            raise one
        rows.append(one)
    return torch.cat(rows)
