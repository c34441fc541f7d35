"""The metrics of training: records of loss and speed, and of skipped steps."""

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
from .learning_rate import learning_rate
from .process_group import ProcessGroup
from .sinks import open_sinks
from .state import TrainingState
from .step import StepResult


class MetricsLogger:
    """Writes `metrics.jsonl` and `skipped.jsonl`, and to the recipe's sinks. Only the main process writes.

    Args:
        run: whose folder is written to.
        recipe: its recipe.
        split: its data, for their shape and classes.
        state: the training state, whose meters are read and reset.
        group: the processes.
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
        """Write a record of the steps since the last record, and return its loss as text for the progress bar."""
        means = self.state.meters.report()
        if self.group.is_main:
            record = {"step": step, "images": step * self.recipe.train.batch, **means, **self._speed(step)}
            record["lr"] = learning_rate(self.recipe, step)
            self.run.write_metrics(record)
            for sink in self.sinks:
                sink.write(record)
        return "" if means["loss"] is None else f"loss {means['loss']:.4f}"

    def record_skipped(self, step: int, result: StepResult) -> None:
        """Write that a step was skipped, and because of which samples."""
        if self.group.is_main:
            record = {"step": step, "samples": result.nonfinite, "gradient": str(result.gradient)}
            self.run.write_skipped(record)

    def image(self, file: Path, step: int) -> None:
        """Send an image grid of samples to the sinks."""
        for sink in self.sinks:
            sink.image("samples", file, step)

    def close(self) -> None:
        """Close the sinks, which complete their writes."""
        for sink in self.sinks:
            sink.close()

    def _speed(self, step: int) -> dict[str, Any]:
        """Return seconds since the start, and images and floating-point operations per second since the last record.

        Operations are those of the network, three times a forward pass, over all processes. They are left out for a
        network whose operations cannot be counted.
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
    """Return the multiply-accumulates of the network for one image; None if it does not run on meta tensors."""
    try:
        return forward_macs(recipe, split.training.shape, len(split.classes))
    except UserError:
        return None


def _peak_memory(device: torch.device) -> float:
    """Return the peak memory of this process in bytes: on a GPU, that of tensors."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
