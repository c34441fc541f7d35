"""What results may depend on besides recipes: versions of packages, and the machine."""

import os
import platform
from importlib.metadata import version
from typing import Any

import torch


def versions() -> dict[str, str]:
    """Return the versions that numbers may depend on."""
    return {name: version(name) for name in ("sitkit", "torch", "numpy")} | {"python": platform.python_version()}


def machine() -> dict[str, Any]:
    """Return the processor, the cores, the GPUs and the system of this machine."""
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {"processor": _processor(), "cores": os.cpu_count(), "gpus": gpus, "system": platform.system()}


def _processor() -> str:
    """Return the name of the processor on Linux, elsewhere its architecture."""
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
