"""A tensor attribute that lets code read times on a GPU without a synchronisation.

Solvers call fields at times (B,) that are all equal and known on the CPU. They store this number in the attribute
`known_time` of the tensor. Guidance intervals and conversions between paths read it instead of the tensor.
"""

from torch import Tensor


def with_known_time(t: Tensor, time: float) -> Tensor:
    """Set the attribute `known_time` of times t, (B,), that all equal `time`, and return t."""
    t.known_time = time  # type: ignore[attr-defined]
    return t


def known_time(t: Tensor) -> float | None:
    """Return the attribute `known_time` of times t, (B,), or None if it is not set."""
    time: float | None = getattr(t, "known_time", None)
    return time
