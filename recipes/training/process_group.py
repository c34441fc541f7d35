"""The process group: ranks, collective operations, and DDP.

torchrun starts the processes, and sets RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE. A single process needs no
initialization.
"""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..support.errors import UserError

CPU = torch.device("cpu")
_DDP_ARGUMENTS = signature(DistributedDataParallel).parameters


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together, as seen by one of them."""

    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    """The number of processes on this machine."""
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def on_main(self, function: Callable[[], Any]) -> Any:
        """Call a function on the main process, and return its result, or raise its UserError, on all processes."""
        result: Any = None
        if self.is_main:
            try:
                result = function()
            except UserError as error:
                result = error
        if self.world_size > 1:
            results = [result]
            dist.broadcast_object_list(results)
            result = results[0]
        if isinstance(result, UserError):
            raise result
        return result


@contextmanager
def init_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started, if it did, and leave them at the end.

    Args:
        device: to compute on. If it is a GPU, each process takes GPU number LOCAL_RANK.

    Raises:
        UserError: there are more processes on this machine than GPUs.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield ProcessGroup(device=device)
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UserError(f"process {local_rank} of this machine has no GPU: there are {torch.cuda.device_count()}")
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    try:
        local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
        yield ProcessGroup(dist.get_rank(), world_size, local_world_size, device)
        dist.barrier()
    finally:
        gc.collect()  # users of the group, such as DDP, must be freed before it: freed after it, they hang
        dist.destroy_process_group()


class ForwardModule(nn.Module):
    """A module that DDP can wrap: the parameters of a network, and the function to call as its forward pass."""

    def __init__(self, network: nn.Module, function: Callable[..., Tensor]):
        super().__init__()
        self.network = network
        self.function = function

    def forward(self, x: Tensor, t: Tensor, **conditions: Tensor) -> Tensor:
        """Return the network's output."""
        return self.function(x, t, **conditions)


def wrap_ddp(network: nn.Module, function: Callable[..., Tensor], group: ProcessGroup) -> nn.Module:
    """Return the module to train: wrapped in DDP if there are several processes and weights are not sharded.

    Args:
        network: whose parameters are trained.
        function: the forward pass of the network.
        group: the processes, over which DDP averages gradients.
    """
    module = ForwardModule(network, function)
    if group.world_size == 1 or is_sharded(next(network.parameters())):
        return module
    ids = [group.device] if group.device.type == "cuda" else None
    # torch renamed broadcast_buffers to forward_sync_buffers in 2.13. Buffers of a network are constants.
    sync = next(name for name in ("forward_sync_buffers", "broadcast_buffers") if name in _DDP_ARGUMENTS)
    options: dict[str, Any] = {"gradient_as_bucket_view": True, sync: False}
    return DistributedDataParallel(module, device_ids=ids, **options)


@contextmanager
def no_gradient_sync(module: nn.Module, network: nn.Module, skip: bool) -> Iterator[None]:
    """Skip the averaging of gradients over processes, for all micro-batches of a step but the last.

    Args:
        module: as `wrap_ddp` returns it.
        network: the network in it, which may be sharded by FSDP2.
        skip: whether to skip it.
    """
    if hasattr(network, "set_requires_gradient_sync"):
        network.set_requires_gradient_sync(not skip)  # type: ignore[operator]
    with module.no_sync() if skip and isinstance(module, DistributedDataParallel) else nullcontext():
        yield


def full_tensor(value: Tensor) -> Tensor:
    """Return a sharded tensor in full, gathered from all processes; another as it is."""
    return value.full_tensor() if is_sharded(value) else value  # type: ignore[attr-defined]


def is_sharded(value: Tensor) -> bool:
    """Return whether a tensor is a DTensor, without importing DTensor."""
    return hasattr(value, "full_tensor")
