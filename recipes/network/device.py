"""The device to compute on, by name."""

import warnings

import torch

from ..storage.work_partition import WorkPartition
from ..support.allocator import keep_freed_memory
from ..support.errors import UserError


def device_of(name: str) -> torch.device:
    """Return the device of a name, and prepare this process to compute on it.

    Args:
        name: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, ... Under torchrun, `cuda` is GPU LOCAL_RANK.

    Raises:
        UserError: there is no such device, or it cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with warnings.catch_warnings():  # of device types that torch has deprecated
            warnings.simplefilter("ignore")
            device = torch.device(name)
        own = WorkPartition.from_environment().device(device)  # or all processes would open the first GPU
        torch.ones(2, device=own).sum().item()
    except Exception as error:  # each kind of device raises its own: those without a backend, or without numbers
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise UserError(f"--device {name} cannot be used here: {reason}; cpu, cuda and cuda:1 are devices") from None
    if device.type != "cpu":
        return device
    keep_freed_memory()
    return torch.device("cpu")  # without an index
