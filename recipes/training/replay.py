"""Repeat one step of a run, to inspect its samples and losses."""

from collections.abc import Callable

import torch

from ..experiment.recipe import Recipe
from ..runs.run import Run
from ..storage import checkpoints
from ..support.progress import progress
from .batches import Batches
from .initial_weights import NONE, check_initial, initial_weights
from .process_group import ProcessGroup
from .state import TrainingState
from .step import TrainingStep

SHOWN = 16
"""Samples to print."""


def replay(run: Run, recipe: Recipe, step: int, device: torch.device, say: Callable[[str], None]) -> None:
    """Repeat a step from the newest undamaged checkpoint before it, and print its samples, those of largest loss first.

    Nothing is written. A single process computes: if several trained, sums are rounded in another order.

    Args:
        run: the run.
        recipe: its recipe.
        step: which step, from 1.
        device: to compute on.
        say: is called with each line of output.

    Raises:
        UserError: the run's data or network cannot be built.
    """
    split, group = run.data(recipe), ProcessGroup(device=device)
    state, batches = TrainingState(recipe, split, group), Batches(recipe, split, group)
    take_step = TrainingStep(recipe, split, state, group)
    before = [one for one in checkpoints.list_checkpoints(run.checkpoints) if checkpoints.step_of(one) < step]
    if checkpoint := checkpoints.newest_of(before, say):
        state.load(checkpoint)
    elif recipe.train.init != NONE:
        weights = initial_weights(recipe, split, say)
        check_initial(run, recipe.train.init, weights, write=False)
        state.initialise(weights)
    say(f"from step {state.step} of {run.folder}")
    with progress("repeating", step - 1, state.step, unit="steps") as advance:
        for number in range(state.step + 1, step):
            take_step(number, batches(number))
            advance(1)
    micro_batches = batches(step)
    losses = take_step.backward(micro_batches).cpu()
    say(f"step {step}: loss {losses.mean():.6g}, norm of the gradient {take_step.gradient_norm():.6g}")
    say("   sample     image       t  class            loss")
    numbers, images, t = (torch.cat([getattr(one, key) for one in micro_batches]) for key in ("numbers", "images", "t"))
    for row in losses.nan_to_num(nan=torch.inf).argsort(descending=True)[:SHOWN].tolist():
        image = int(images[row])
        name = split.classes[int(split.training.labels[image])] if split.classes else "-"
        say(f"{int(numbers[row]):9d} {image:9d} {t[row]:7.4f}  {name:10s} {losses[row]:10.6g}")
