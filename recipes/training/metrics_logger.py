"""What training writes down: records of the loss and of the speed, and the steps that were skipped."""

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ..data.images import Split
from ..experiment.recipe import Recipe
from ..runs.run import Run
from ..support.errors import UserError
from .cost_estimate import forward_macs
from .process_group import ProcessGroup
from .sinks import open_sinks
from .state import TrainingState
from .step import StepResult, learning_rate


class MetricsLogger:
    """Writes `metrics.jsonl` and `skipped.jsonl`, if this process leads, and tells the recipe's sinks.

    Args:
        run: whose folder is written.
        recipe: its recipe.
        split: its data, for their shape and classes.
        state: what is being trained, whose meters are read.
        group: of whom the leader writes.
    """

    def __init__(self, run: Run, recipe: Recipe, split: Split, state: TrainingState, group: ProcessGroup):
        self.run = run
        self.recipe = recipe
        self.state = state
        self.group = group
        self.macs = _macs(recipe, split) if group.is_main else None
        self.sinks = open_sinks(recipe, run.folder, state.step) if group.is_main else []
        self.start = self.since = time.monotonic()
        self.before = state.step

    def record(self, step: int) -> str:
        """Write what was counted since the last record, and return a word of it."""
        counted = self.state.meters.report()
        if self.group.is_main:
            record = {"step": step, "images": step * self.recipe.train.batch, **counted, **self._speed(step)}
            record["lr"] = learning_rate(self.recipe, step)
            self.run.write_metrics(record)
            for sink in self.sinks:
                sink.write(record)
        return "" if counted["loss"] is None else f"loss {counted['loss']:.4f}"

    def skip(self, step: int, outcome: StepResult) -> None:
        """Write that a step was not taken, and for which samples."""
        if self.group.is_main:
            record = {"step": step, "samples": outcome.bad, "gradient": str(outcome.gradient)}
            self.run.write_skipped(record)

    def picture(self, file: Path, step: int) -> None:
        """Tell of a picture of samples."""
        for sink in self.sinks:
            sink.picture("samples", file, step)

    def close(self) -> None:
        """Finish what sinks have under way."""
        for sink in self.sinks:
            sink.close()

    def _speed(self, step: int) -> dict[str, Any]:
        """Return seconds since the start, images and floating-point operations a second since the last record.

        The operations are those that the network needs, three times a forward pass, of all processes; without them is
        the record of a network that cannot be counted.
        """
        now = time.monotonic()
        rate = (step - self.before) * self.recipe.train.batch / max(now - self.since, 1e-9)
        self.since, self.before = now, step
        return {
            "seconds": round(now - self.start, 3),
            "images_per_second": round(rate, 3),
            **({} if self.macs is None else {"teraflops": 6e-12 * self.macs * rate}),
            "memory_gib": round(_peak_memory(self.group.device) / 2**30, 3),
        }


def _macs(recipe: Recipe, split: Split) -> int | None:
    """Return the multiply-accumulates of the network on an image, None if shapes alone do not tell."""
    try:
        return forward_macs(recipe, split.training.shape, len(split.classes))
    except UserError:
        return None


def _peak_memory(device: torch.device) -> float:
    """Return the most bytes that this process has held: on a GPU, those of tensors."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
