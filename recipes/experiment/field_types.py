"""Types of values in a recipe: numbers with bounds, intervals of times, and names of precisions."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

Count = Annotated[int, Field(ge=1, le=2**63 - 1)]
Steps = Annotated[int, Field(ge=1, le=10**8 - 1)]
"""Names of checkpoints have eight digits."""
Batch = Annotated[int, Field(ge=1, le=2**20)]
"""The limit catches mistakes: sample numbers, times and labels of a whole batch are held in memory."""
Bins = Annotated[int, Field(ge=1, le=10_000)]
"""Intervals of [0, 1]: each record of metrics has a value for each."""
SolverSteps = Annotated[int, Field(ge=1, le=10**6)]
"""Networks get times as float32: with more steps, times near t = 1 would be equal."""
Threads = Annotated[int, Field(ge=0, le=1024)]
Images = Annotated[int, Field(ge=2, le=10**9)]
Draws = Annotated[int, Field(ge=1, le=10**6)]
"""Each draw has its own seed; the seeds of further draws follow that of the first."""


def _ordered(interval: tuple[float, float]) -> tuple[float, float]:
    if not interval[0] < interval[1]:
        raise ValueError(f"should be [low, high] with low < high, got {list(interval)}")
    return interval


Time = Annotated[float, Field(ge=0, le=1)]
Times = Annotated[tuple[Time, Time], AfterValidator(_ordered)]
Interval = Literal["auto"] | Times
Precision = Literal["float32", "tf32", "bf16"]
