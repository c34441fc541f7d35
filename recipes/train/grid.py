"""The pictures of a run: a few samples of every class, always from the same noise, drawn by all processes together."""

import sys
from pathlib import Path

import torch
from torch import Tensor

from .. import checkpoints
from ..data.images import Split
from ..recipe import Recipe
from ..run import Run
from ..sample.generate import Drawing, NotFinite
from ..sample.pictures import label_grid, save_picture
from .journal import Journal
from .processes import Processes
from .state import State

ROWS, COLUMNS = 8, 10


def is_due(step: int, recipe: Recipe) -> bool:
    """Whether there is a grid after a step."""
    return step > 0 and (step == recipe.train.steps or step % recipe.grid.every == 0)


def grid_file(run: Run, step: int) -> Path:
    """Return the file of the grid after a step."""
    return run.folder / "grids" / f"{checkpoints.name(step)}.png"


def save_grid(state: State, recipe: Recipe, split: Split, team: Processes, journal: Journal) -> None:
    """Draw the grid of a state, all processes together, and write it, if this is the one that writes."""
    columns = min(COLUMNS, max(1, len(split.classes)))
    labels = torch.arange(ROWS * columns) % columns if split.classes else None
    try:
        pixels = draw_rows(Drawing(state.average, recipe, split, recipe.seed), columns, labels, team, state.sharded)
    except NotFinite as problem:  # which is the sampler's, and need not stop training
        if team.leads:
            print(f"no picture after step {state.step}: {problem}", file=sys.stderr)
        return
    if team.leads:
        file = grid_file(journal.run, state.step)
        save_picture(label_grid(pixels, labels, split.classes), file)
        journal.picture(file, state.step)


def draw_rows(drawing: Drawing, columns: int, labels: Tensor | None, team: Processes, sharded: bool) -> Tensor:
    """Return the images of a grid, (ROWS * columns, C, H, W) uint8, on every process.

    Each process draws every `world`-th row, or all rows where weights are sharded: those are gathered by all processes
    at each call of the network. Rows are drawn one by one, so the images do not depend on how many processes there are,
    not even by rounding.

    Args:
        drawing: what draws.
        columns: the images of a row.
        labels: (ROWS * columns,), or None.
        team: the processes, all of which call this.
        sharded: whether weights are.

    Raises:
        NotFinite: on every process, if an image of any of them has diverged.
    """
    own = range(ROWS) if sharded else range(team.rank, ROWS, team.world)
    drawn: dict[int, Tensor | NotFinite] = {}
    for row in own:
        numbers = torch.arange(row * columns, (row + 1) * columns)
        try:
            drawn[row] = drawing(numbers, None if labels is None else labels[numbers]).pixels
        except NotFinite as problem:
            drawn[row] = problem
    together = {row: one for part in ([drawn] if sharded else team.gather(drawn)) for row, one in part.items()}
    rows = []
    for row in range(ROWS):
        one = together[row]
        if isinstance(one, NotFinite):
            raise one
        rows.append(one)
    return torch.cat(rows)
