"""The training loop of the 2D demos."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..support.progress import progress

BATCH = 512


def train(model: nn.Module, loss: Callable[[], Tensor], steps: int) -> None:
    """Train a network by AdamW on a one-cycle schedule; `loss` returns the loss of a new batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=max(steps, 2))
    with progress("training", steps, unit="steps") as advance:
        for _ in range(steps):
            value = loss()
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            advance(1)
