"""The memory that statistics of features take, computed before samples are generated or images are read."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ..support.errors import UserError

DOUBLE, SINGLE = 8, 4
"""Bytes of a float64, for covariances and computations with them, and of a float32, for features."""
WORKING = 7
"""Matrices of working memory, besides those of statistics.

At 3,072 features the measured peak is 12.0 matrices, of which 5 are statistics (one draw, held-out
and training images).
"""
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryDemand:
    """The numbers of statistics and features that are in memory at once.

    Args:
        draws: the number of sets of samples.
        samples: the number of images of each set whose features are stored.
        references: the same number for each set of real images; 0 if it is not known.
    """

    draws: int = 0
    samples: int = 0
    references: tuple[int, ...] = (0,)

    def bytes_on_cpu(self, pooled: int, spatial: int) -> int:
        """Return the bytes of statistics with `pooled` pooled and `spatial` spatial features.

        A set of samples has three covariances of pooled features, as each half has one, and one of spatial features. A
        set of real images has one of each.
        """
        real = len(self.references)
        matrices = (3 * self.draws + real + WORKING) * pooled**2 + (self.draws + real + WORKING) * spatial**2
        return DOUBLE * matrices + SINGLE * pooled * (self.draws * self.samples + sum(self.references))

    def bytes_on_device(self, pooled: int) -> int:
        """Return the bytes of the features of a set of samples and of a reference for the kernel distance."""
        return (SINGLE + DOUBLE) * pooled * (self.samples + self.references[0])


def check_memory(name: str, pooled: int, spatial: int, load: MemoryDemand, device: torch.device) -> None:
    """Raise a `UserError` unless there is enough memory for the statistics.

    Args:
        name: the name of the extractor.
        pooled: the number of pooled features of an image.
        spatial: the number of spatial features of an image.
        load: the numbers of statistics and features.
        device: where neighbours are computed.
    """
    needs = [("memory", load.bytes_on_cpu(pooled, spatial), available_memory())]
    if device.type == "cuda":
        needs.append((f"memory of {device}", load.bytes_on_device(pooled), torch.cuda.mem_get_info(device)[0]))
    for what, needed, free in needs:
        if needed > free:
            covariances = DOUBLE * pooled**2 > SINGLE * pooled * load.samples
            advice = "set evaluation.features to an extractor with fewer features: inception, dinov2 or eff_net_lite0"
            raise UserError(
                f"{name} computes {pooled:,} features per image: their statistics, with covariances of "
                f"{_amount(DOUBLE * pooled**2)} each, take {_amount(needed)} of {what}, and {_amount(free)} are free: "
                + (advice if covariances else f"{advice}; or use fewer samples")
            )


def available_memory() -> int:
    """Return the bytes of memory available to this process: those of the machine, limited by its control groups."""
    free = _available_on_machine()
    for group in _control_groups():
        limit, used = _read_number(group / "memory.max"), _read_number(group / "memory.current")
        if limit is not None and used is not None:
            free = min(free, limit - used + _reclaimable(group))
    return max(free, 0)


def _available_on_machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _control_groups() -> list[Path]:
    """Return the folders of this process's control group and of those above it (version 2)."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    return [] if path is None else [CGROUPS / path, *(CGROUPS / parent for parent in Path(path).parents)]


def _read_number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _reclaimable(group: Path) -> int:
    """Return the bytes of cached files in a control group's memory, which can be reclaimed."""
    try:
        lines = [line.split() for line in (group / "memory.stat").read_text().splitlines()]
    except OSError:
        return 0
    return sum(int(value) for name, value in lines if name in ("inactive_file", "active_file"))


def _amount(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
