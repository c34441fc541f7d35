"""The training loop: from a recipe to a run folder with checkpoints."""

import traceback
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import torch

from ..experiment.recipe import Recipe
from ..experiment.recipe_toml import recipe_to_toml
from ..runs.data_record import open_data
from ..runs.run import Run
from ..runs.source_data import record_source
from ..storage import checkpoints
from ..support.errors import UserError
from ..support.interrupts import interrupts
from ..support.progress import print_once, progress
from ..support.torch_settings import deterministic
from ..support.trust import TRUST_NOTHING, Trust
from . import sample_grid
from .batches import Batches, prefetch
from .checkpoint_writer import CheckpointWriter
from .initial_weights import NONE, check_initial, check_trained, initial_weights
from .metrics_logger import MetricsLogger
from .process_group import ProcessGroup, init_process_group
from .sample_grid import save_grid
from .state import TrainingState
from .step import TrainingStep


def train(
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    say: Callable[[str], None] = print,
    trust: Trust = TRUST_NOTHING,
) -> None:
    """Train a recipe in a folder, or resume the run that is there. Processes started by torchrun train together.

    Args:
        recipe: the experiment.
        folder: of the run.
        device: to train on. If it is a GPU, each of several processes takes one.
        say: is called with each line of output.
        trust: the code that the recipe of a run in the folder may name, besides that which this recipe names.

    Raises:
        UserError: the recipe cannot be built, the folder cannot be used, or losses do not become finite again.
        KeyboardInterrupt: the run was interrupted, after a checkpoint was written.
    """
    with deterministic(recipe.compute.deterministic), init_process_group(device) as group:
        try:
            _train(recipe, folder, group, say if group.is_main else lambda line: None, trust)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # frees what they refer to before the process group
            raise


def _train(recipe: Recipe, folder: Path, group: ProcessGroup, say: Callable[[str], None], trust: Trust) -> None:
    with ExitStack() as stack:
        existing = Run(folder)
        record = group.on_main(lambda: existing.data_record() if existing.recipe_file.is_file() else None)
        split = open_data(recipe.data, record)
        group.on_main(lambda: check_trained(existing))
        resumes = group.on_main(lambda: bool(checkpoints.list_checkpoints(existing.checkpoints)))
        weights = None if resumes or recipe.train.init == NONE else initial_weights(recipe, split, say)
        state, batches = TrainingState(recipe, split, group), Batches(recipe, split, group)
        take_step = TrainingStep(recipe, split, state, group)
        run: Run = group.on_main(lambda: stack.enter_context(Run.open_for_training(folder, recipe, split, trust)))
        group.on_main(lambda: record_source(run.folder, batches.source_data))
        say(recipe_to_toml(recipe))
        for line in split.notes:
            print_once(line)
        _resume(state, run, group, say)
        group.on_main(lambda: run.complete_record(recipe.data, split, say))
        writer = stack.enter_context(closing(CheckpointWriter(run.checkpoints, recipe, group)))
        if weights is not None:
            group.on_main(lambda: check_initial(run, recipe.train.init, weights))
            state.initialise(weights)
            writer.save(state)
        logger = stack.enter_context(closing(MetricsLogger(run, recipe, split, state, group)))
        steps = recipe.train.steps
        if group.on_main(
            lambda: sample_grid.is_due(state.step, recipe) and not sample_grid.grid_file(run, state.step).exists()
        ):
            save_grid(state, recipe, split, group, logger)  # the run was killed after the checkpoint
        advance = stack.enter_context(progress("training", steps, state.step, unit="steps", quiet=not group.is_main))
        interrupted = stack.enter_context(interrupts())
        for step, micro_batches in prefetch(batches, range(state.step + 1, steps + 1), recipe.compute.workers):
            result = take_step(step, micro_batches, stop=interrupted())
            if result.nonfinite is None:
                state.meters.add_step(result.sums, result.gradient)
            else:
                logger.record_skipped(step, result)
                _check_patience(state.meters.add_skipped(), step, recipe, run)
            last = step == steps
            if step == 1 or last or step % recipe.log.every == 0:
                advance(0, logger.record(step))
            if last or result.stop or step % recipe.checkpoint.every == 0:
                writer.save(state)
            if sample_grid.is_due(step, recipe):
                save_grid(state, recipe, split, group, logger)
            advance(1)
            if result.stop:
                raise KeyboardInterrupt
        writer.wait()
        say(f"trained {state.step} steps: {group.on_main(run.latest)}")


def _resume(state: TrainingState, run: Run, group: ProcessGroup, say: Callable[[str], None]) -> None:
    """Load the newest undamaged checkpoint, if there is one, and drop the records after it."""

    def newest_checkpoint() -> Path | None:
        checkpoints.remove_temporary(run.checkpoints)
        newest = checkpoints.newest(run.checkpoints, say)
        if newest is None and checkpoints.list_checkpoints(run.checkpoints):
            raise UserError(
                f"no checkpoint of {run.folder} is undamaged: restore one, or remove {run.checkpoints} to train from "
                "the first step again"
            )
        return newest

    checkpoint = group.on_main(newest_checkpoint)
    if checkpoint:
        state.load(checkpoint)
        say(f"resuming after step {state.step} of {run.folder}")
    group.on_main(lambda: run.cut_metrics(state.step))


def _check_patience(in_a_row: int, step: int, recipe: Recipe, run: Run) -> None:
    if in_a_row >= recipe.train.patience:
        raise UserError(
            f"loss or gradient were not finite in {in_a_row} steps in a row, the last of which is {step}: lower "
            f"optimizer.lr, or see `sitkit replay {run.folder} --step {step}`; checkpoints are not affected"
        )
