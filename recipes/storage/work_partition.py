"""Numbered pieces of work, divided among processes.

Process `rank` of `world_size` takes the pieces k with k mod world_size = rank. Processes communicate through files
only: each piece has a file, which is complete or absent. So any process can be killed at any moment, and any number of
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
"""For how many seconds another process may take over a piece."""


@dataclass(frozen=True)
class WorkPartition:
    """One process of those that work on the same numbered pieces."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def from_environment(cls) -> "WorkPartition":
        """Return that of this process, by RANK and WORLD_SIZE, as torchrun sets them.

        Raises:
            UserError: they are no such numbers.
        """
        rank, world_size = (_number(name, default) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
        if not 0 <= rank < world_size:
            raise UserError(f"RANK must lie between 0 and WORLD_SIZE - 1, got {rank} of {world_size}")
        return cls(rank, world_size)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that speaks, waits for the others and puts their work together."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """Return the device of this process, which becomes torch's current GPU.

        If `device` names no GPU in particular, it is that of number LOCAL_RANK, counted round where there are fewer.
        """
        if device.type != "cuda":
            return device
        if device.index is None:
            device = torch.device("cuda", _number("LOCAL_RANK", 0) % max(1, torch.cuda.device_count()))
        if torch.cuda.device_count():  # or else torch says best what is wrong, when the device is used
            torch.cuda.set_device(device)
        return device

    def assigned(self, pieces: Sequence[int]) -> list[int]:
        """Return those of some pieces that are this process's."""
        return [piece for piece in pieces if piece % self.world_size == self.rank]

    def wait(self, missing: Callable[[], int], what: str, patience: float = TIMEOUT) -> None:
        """Wait until nothing is missing that other processes make.

        Args:
            missing: how many pieces are.
            what: the pieces, such as 'shards of SAMPLES'.
            patience: for how many seconds to wait for one more.

        Raises:
            UserError: none has come for so long.
        """
        left, since = missing(), time.monotonic()
        while left:
            time.sleep(POLL_SECONDS)
            now = missing()
            if now < left:
                left, since = now, time.monotonic()
            elif time.monotonic() - since > patience:
                raise UserError(
                    f"{left} {what} are left to other processes, and none was finished for {patience:.0f} s; "
                    "once no process runs, the same command goes on"
                )


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise UserError(f"{name} must be a number, got '{value}'")
    return int(value)
