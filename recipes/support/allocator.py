"""What a process frees on the CPU is kept for what it allocates next.

glibc maps large tensors one by one, and hands back a free stretch at the end of its heap. So the system fills with
zeros, page by page, what the next layer or the next step then overwrites: a seventh of the time of a forward pass of
SiT-S/2 that is not compiled, and a tenth of a compiled step, whose backward pass frees 660 MiB at once.
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
