"""How much memory numbers of features take, which is known before anything is drawn or looked at."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ..support.errors import UserError

DOUBLE, SINGLE = 8, 4
"""Bytes of a number: of covariances and what is computed with them, and of features."""
WORKING = 7
"""Matrices, besides those that are kept, that are held at a time while statistics are made, read and compared.

With 3,072 features a peak of 12.0 matrices was measured, of which 5 are kept (one draw, held-out and training images).
"""
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryDemand:
    """What is held in memory at a time, as counts.

    Args:
        draws: how many sets of samples there are, of all of which statistics are held.
        samples: of how many images of each the features are held.
        references: of how many images of each set of real images the features are held; 0 where it is not known.
    """

    draws: int = 0
    samples: int = 0
    references: tuple[int, ...] = (0,)

    def bytes_on_cpu(self, pooled: int, spatial: int) -> int:
        """Return the bytes that statistics take of so many pooled features, and so many spatial ones.

        Of a set of samples there are three covariances of pooled features, for each half has its own, and one of
        spatial ones; of real images there is one of each.
        """
        real = len(self.references)
        matrices = (3 * self.draws + real + WORKING) * pooled**2 + (self.draws + real + WORKING) * spatial**2
        return DOUBLE * matrices + SINGLE * pooled * (self.draws * self.samples + sum(self.references))

    def bytes_on_device(self, pooled: int) -> int:
        """Return the bytes of the features of a set of samples and of a reference, as a kernel distance has them."""
        return (SINGLE + DOUBLE) * pooled * (self.samples + self.references[0])


def check(name: str, pooled: int, spatial: int, load: MemoryDemand, device: torch.device) -> None:
    """Raise a problem unless the memory is enough for statistics of so many features.

    Args:
        name: of the extractor.
        pooled: how many pooled features an image has.
        spatial: how many spatial ones.
        load: what is held at a time.
        device: where neighbours are found.
    """
    needs = [("memory", load.bytes_on_cpu(pooled, spatial), available())]
    if device.type == "cuda":
        needs.append((f"memory of {device}", load.bytes_on_device(pooled), torch.cuda.mem_get_info(device)[0]))
    for what, needed, free in needs:
        if needed > free:
            covariances = DOUBLE * pooled**2 > SINGLE * pooled * load.samples
            advice = "choose an extractor of fewer features, by evaluation.features: inception, dinov2 or eff_net_lite0"
            raise UserError(
                f"{name} makes {pooled:,} features of an image: their statistics, with covariances of "
                f"{_amount(DOUBLE * pooled**2)} each, take {_amount(needed)} of {what}, and {_amount(free)} are free: "
                + (advice if covariances else f"{advice}; or take fewer samples")
            )


def available() -> int:
    """Return how many bytes of memory this process can have: of the machine, or of its control groups if they say."""
    free = _of_machine()
    for group in _groups():
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is not None and used is not None:
            free = min(free, limit - used + _reclaimable(group))
    return max(free, 0)


def _of_machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _groups() -> list[Path]:
    """Return the folders of this process's control group and of those above it (version 2)."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    return [] if own is None else [CGROUPS / own, *(CGROUPS / parent for parent in Path(own).parents)]


def _number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _reclaimable(group: Path) -> int:
    """Return the bytes of files that a control group's memory holds, and gives up for other uses."""
    try:
        lines = [line.split() for line in (group / "memory.stat").read_text().splitlines()]
    except OSError:
        return 0
    return sum(int(value) for name, value in lines if name in ("inactive_file", "active_file"))


def _amount(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
