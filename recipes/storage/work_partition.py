"""Partition of indexed work items over processes.

Process `rank` of `world_size` takes the items k with k mod world_size = rank. Processes communicate through files only:
each item has a file, which is complete or absent. So any process can be killed at any moment, and any number of
processes can resume.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..support.errors import UserError

POLL_SECONDS = 0.2
TIMEOUT = 3600.0
"""How many seconds to wait for another process to finish an item."""


@dataclass(frozen=True)
class WorkPartition:
    """The rank of this process among those that share indexed work items, and their number.

    Args:
        rank: the index of this process.
        world_size: the number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @classmethod
    def from_environment(cls) -> "WorkPartition":
        """Return the partition of this process, from RANK and WORLD_SIZE as torchrun sets them.

        Raises:
            UserError: they are not valid.
        """
        rank, world_size = (_number(name, default) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
        if not 0 <= rank < world_size:
            raise UserError(f"RANK must lie between 0 and WORLD_SIZE - 1, got {rank} of {world_size}")
        return cls(rank, world_size)

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which prints messages, waits for the others and combines the results."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """Return the device of this process, which becomes torch's current GPU.

        `cuda` without an index is the GPU with index LOCAL_RANK, modulo the number of GPUs.
        """
        if device.type != "cuda":
            return device
        if device.index is None:
            device = torch.device("cuda", _number("LOCAL_RANK", 0) % max(1, torch.cuda.device_count()))
        if torch.cuda.device_count():  # without one, torch raises a clear error when the device is used
            torch.cuda.set_device(device)
        return device

    def assigned(self, items: Sequence[int]) -> list[int]:
        """Return the items that this process works on."""
        return [item for item in items if item % self.world_size == self.rank]

    def wait(self, missing: Callable[[], int], what: str, timeout: float = TIMEOUT) -> None:
        """Wait until the other processes have finished their items.

        Args:
            missing: returns the number of unfinished items.
            what: the items, for messages, such as 'shards of SAMPLES'.
            timeout: how many seconds to wait for the next item.

        Raises:
            UserError: no item was finished within the timeout.
        """
        left, since = missing(), time.monotonic()
        while left:
            time.sleep(POLL_SECONDS)
            now = missing()
            if now < left:
                left, since = now, time.monotonic()
            elif time.monotonic() - since > timeout:
                raise UserError(
                    f"{left} {what} are assigned to other processes, and none was finished for {timeout:.0f} s; "
                    "when no process is running, run the same command to resume"
                )


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise UserError(f"{name} must be a number, got '{value}'")
    return int(value)
