"""Training, from a recipe to a folder of checkpoints."""

import traceback
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import torch

from ..experiment.recipe import Recipe
from ..experiment.recipe_toml import recipe_to_toml
from ..runs.data_record import open_data
from ..runs.run import Run
from ..storage import checkpoints
from ..support.errors import UserError
from ..support.interrupts import interrupts
from ..support.progress import print_once, progress
from ..support.torch_settings import deterministic
from ..support.trust import TRUST_NOTHING, Trust
from . import sample_grid
from .batches import Batches, ahead
from .checkpoint_writer import CheckpointWriter
from .initial_weights import NONE, check_initial, check_trained, initial_weights
from .metrics_logger import MetricsLogger
from .process_group import ProcessGroup, processes
from .sample_grid import save_grid
from .state import TrainingState
from .step import StepResult, TrainingStep


def train(
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    say: Callable[[str], None] = print,
    trust: Trust = TRUST_NOTHING,
) -> None:
    """Train a recipe in a folder, or go on with it where it stopped; together, if torchrun started many processes.

    Args:
        recipe: the experiment.
        folder: gets the run.
        device: where to train; of many processes, each on a GPU of its own if this is one.
        say: takes lines for the reader.
        trust: the code that the recipe of a run that is there may name, besides that which this recipe names.

    Raises:
        UserError: the recipe cannot be built, the folder cannot be used, or numbers do not become finite again.
        KeyboardInterrupt: the run was interrupted; a checkpoint has been written.
    """
    with deterministic(recipe.compute.deterministic), processes(device) as group:
        try:
            _train(recipe, folder, group, say if group.is_main else lambda line: None, trust)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # what they hold goes before the process group does
            raise


def _train(recipe: Recipe, folder: Path, group: ProcessGroup, say: Callable[[str], None], trust: Trust) -> None:
    with ExitStack() as stack:
        there = Run(folder)
        record = group.agree(lambda: there.data_record() if there.recipe_file.is_file() else None)
        split = open_data(recipe.data, record)
        group.agree(lambda: check_trained(there))
        begun = group.agree(lambda: bool(checkpoints.list_checkpoints(there.checkpoints)))
        weights = None if begun or recipe.train.init == NONE else initial_weights(recipe, split, say)
        state, batches = TrainingState(recipe, split, group), Batches(recipe, split, group)
        take_step = TrainingStep(recipe, split, state, group)
        run: Run = group.agree(lambda: stack.enter_context(Run.open_for_training(folder, recipe, split, trust)))
        say(recipe_to_toml(recipe))
        for line in split.notes:
            print_once(line)
        _go_on(state, run, group, say)
        group.agree(lambda: run.complete_record(recipe.data, split, say))
        saver = stack.enter_context(closing(CheckpointWriter(run.checkpoints, recipe, group)))
        if weights is not None:
            group.agree(lambda: check_initial(run, recipe.train.init, weights))
            state.initialise(weights)
            saver.save(state)
        journal = stack.enter_context(closing(MetricsLogger(run, recipe, split, state, group)))
        steps = recipe.train.steps
        if group.agree(
            lambda: sample_grid.is_due(state.step, recipe) and not sample_grid.grid_file(run, state.step).exists()
        ):
            save_grid(state, recipe, split, group, journal)  # the run was killed between the checkpoint and its grid
        advance = stack.enter_context(progress("training", steps, state.step, unit="steps", quiet=not group.is_main))
        interrupted = stack.enter_context(interrupts())
        for step, pieces in ahead(batches, range(state.step + 1, steps + 1), recipe.compute.workers):
            outcome = take_step(step, pieces, stop=interrupted())
            if outcome.bad is None:
                state.meters.take(outcome.sums, outcome.gradient)
            else:
                journal.skip(step, outcome)
                _check_patience(state.meters.skip(), step, outcome, recipe, run)
            last = step == steps
            if step == 1 or last or step % recipe.log.every == 0:
                advance(0, journal.record(step))
            if last or outcome.stop or step % recipe.checkpoint.every == 0:
                saver.save(state)
            if sample_grid.is_due(step, recipe):
                save_grid(state, recipe, split, group, journal)
            advance(1)
            if outcome.stop:
                raise KeyboardInterrupt
        saver.wait()
        say(f"trained {state.step} steps: {group.agree(run.latest)}")


def _go_on(state: TrainingState, run: Run, group: ProcessGroup, say: Callable[[str], None]) -> None:
    """Bring the state to the newest checkpoint that is good, if there is one, and the records with it."""

    def choose() -> Path | None:
        checkpoints.remove_temporary(run.checkpoints)
        newest = checkpoints.newest(run.checkpoints, say)
        if newest is None and checkpoints.list_checkpoints(run.checkpoints):
            raise UserError(
                f"no checkpoint of {run.folder} is good: put one back, or remove {run.checkpoints} to train from the "
                "first step again"
            )
        return newest

    checkpoint = group.agree(choose)
    if checkpoint:
        state.load(checkpoint)
        say(f"going on after step {state.step} of {run.folder}")
    group.agree(lambda: run.cut_metrics(state.step))


def _check_patience(in_a_row: int, step: int, outcome: StepResult, recipe: Recipe, run: Run) -> None:
    if in_a_row >= recipe.train.patience:
        raise UserError(
            f"loss or gradient were not finite in {in_a_row} steps in a row, the last of which is {step}: lower "
            f"optimizer.lr, or see `sitkit replay {run.folder} --step {step}`; checkpoints are good"
        )
