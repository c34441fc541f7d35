"""Numbered pieces of work, of which each process does its share.

Process `rank` of `world` takes the pieces k with k mod world = rank. It knows of the others only by the files that they
write, and needs no connection to them: a piece has a file that is whole or not there. So any process may be killed at
any moment, and any number of them may go on.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .problem import Problem

SECONDS_BETWEEN_LOOKS = 0.2
PATIENCE = 3600.0
"""For how many seconds another process may take over a piece."""


@dataclass(frozen=True)
class Share:
    """One process among those that share work."""

    rank: int = 0
    world: int = 1

    @classmethod
    def of_environment(cls) -> "Share":
        """Return that of this process, by RANK and WORLD_SIZE, as torchrun sets them.

        Raises:
            Problem: they are no such numbers.
        """
        rank, world = (_number(name, default) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
        if not 0 <= rank < world:
            raise Problem(f"RANK must lie between 0 and WORLD_SIZE - 1, got {rank} of {world}")
        return cls(rank, world)

    @property
    def leads(self) -> bool:
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

    def of(self, pieces: Sequence[int]) -> list[int]:
        """Return those of some pieces that are this process's."""
        return [piece for piece in pieces if piece % self.world == self.rank]

    def wait(self, missing: Callable[[], int], what: str, patience: float = PATIENCE) -> None:
        """Wait until nothing is missing that other processes make.

        Args:
            missing: how many pieces are.
            what: the pieces, such as 'shards of SAMPLES'.
            patience: for how many seconds to wait for one more.

        Raises:
            Problem: none has come for so long.
        """
        left, since = missing(), time.monotonic()
        while left:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            now = missing()
            if now < left:
                left, since = now, time.monotonic()
            elif time.monotonic() - since > patience:
                raise Problem(
                    f"{left} {what} are left to other processes, and none was finished for {patience:.0f} s; "
                    "once no process runs, the same command goes on"
                )


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise Problem(f"{name} must be a number, got '{value}'")
    return int(value)
