"""Sums over the steps between two records.

Checkpoints store them, so that a resumed run writes the same records as an uninterrupted one.
"""

from typing import Any

import torch
from torch import Tensor


class Meters:
    """Sums since the last record, over all processes, in float64.

    Args:
        bins: the number of equal parts of [0, 1] by which losses are sorted.
    """

    def __init__(self, bins: int):
        self.losses = torch.zeros(bins, dtype=torch.float64)
        self.samples = torch.zeros(bins, dtype=torch.float64)
        self.gradients = torch.zeros((), dtype=torch.float64)
        self.steps = torch.zeros((), dtype=torch.float64)
        self.skipped = torch.zeros((), dtype=torch.float64)
        self.in_a_row = torch.zeros((), dtype=torch.float64)
        """The steps skipped in a row until now; records do not reset it."""

    def sums_by_bin(self, t: Tensor, losses: Tensor) -> Tensor:
        """Return the sums of losses (B,), and their numbers, by bin of t (B,): (2, bins) float64, on the CPU."""
        count = len(self.losses)
        bins = (t.double() * count).long().clamp(0, count - 1).cpu()
        sums = torch.zeros(2, count, dtype=torch.float64)
        sums[0].index_add_(0, bins, losses.double().cpu())
        sums[1].index_add_(0, bins, torch.ones(len(bins), dtype=torch.float64))
        return sums

    def add_step(self, sums: Tensor, gradient: float) -> None:
        """Add a step that was taken: its losses by bin, (2, bins), and the norm of its gradient."""
        self.losses += sums[0]
        self.samples += sums[1]
        self.gradients += gradient
        self.steps += 1
        self.in_a_row.zero_()

    def add_skipped(self) -> int:
        """Add a step that was skipped, and return how many were skipped in a row."""
        self.skipped += 1
        self.in_a_row += 1
        return int(self.in_a_row)

    def report(self) -> dict[str, Any]:
        """Return the means since the last report, None where there are no values, and reset the sums."""
        record = {
            "loss": _mean(self.losses.sum(), self.samples.sum()),
            "loss_by_t": [_mean(loss, count) for loss, count in zip(self.losses, self.samples, strict=True)],
            "gradient": _mean(self.gradients, self.steps),
            "skipped": int(self.skipped),
        }
        for sums in (self.losses, self.samples, self.gradients, self.steps, self.skipped):
            sums.zero_()
        return record

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sums by name, copied."""
        return {name: value.clone() for name, value in vars(self).items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load sums, unless they have another number of bins: then the meters stay as they are.

        Raises:
            KeyError: a sum is missing.
            RuntimeError: a sum has another shape.
        """
        if state["losses"].shape == self.losses.shape:
            for name, value in state.items():
                vars(self)[name].copy_(value)


def _mean(total: Tensor, count: Tensor) -> float | None:
    return float(total / count) if count else None
