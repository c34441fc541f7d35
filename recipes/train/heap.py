"""What is freed on the CPU is kept for the next step.

A compiled backward pass frees, as one stretch at the end of the heap, what the forward pass kept. glibc hands such a
stretch back to the system, which gives it to the next step page by page, each filled with zeros: 660 MiB and a tenth of
the time of a step of SiT-S/2 at batch 8. Large tensors that are mapped one by one go the same way.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, from now on: `mallopt(3)` of glibc; elsewhere nothing happens."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, -1)  # never
        mallopt(_M_MMAP_MAX, 0)
