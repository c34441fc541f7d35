"""One process or many: who they are, what they agree on, and how a network is spread over them.

Launched by torchrun, which sets RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE; one process needs no process group.
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
    """One process among those that train together."""

    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    """How many of them run on this machine."""
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        """Whether this is the one that speaks and writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over processes."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Return the value of every process, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def agree(self, decide: Callable[[], Any]) -> Any:
        """Return what the leader decides; if that raises a Problem, all do."""
        answer: Any = None
        if self.is_main:
            try:
                answer = decide()
            except UserError as problem:
                answer = problem
        if self.world_size > 1:
            answers = [answer]
            dist.broadcast_object_list(answers)
            answer = answers[0]
        if isinstance(answer, UserError):
            raise answer
        return answer


@contextmanager
def processes(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started, if it did; `device` is where to compute, any GPU meaning one's own.

    Raises:
        UserError: there are more processes on this machine than GPUs.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield ProcessGroup(device=device)
        return
    local = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise UserError(f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if device.type == "cuda":
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    try:
        local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
        yield ProcessGroup(dist.get_rank(), world_size, local_world_size, device)
        dist.barrier()
    finally:
        gc.collect()  # what still uses the group, such as DDP, goes before it: destroyed after it, it waits for ever
        dist.destroy_process_group()


class NetworkCall(nn.Module):
    """A network as training asks it, with all its output channels if so: what DDP wraps."""

    def __init__(self, network: nn.Module, call: Callable[..., Tensor]):
        super().__init__()
        self.network = network
        self.call = call

    def forward(self, x: Tensor, t: Tensor, **conditions: Tensor) -> Tensor:
        """Return the network's output."""
        return self.call(x, t, **conditions)


def wrap_ddp(network: nn.Module, call: Callable[..., Tensor], group: ProcessGroup) -> nn.Module:
    """Return the network as each process trains it, its gradients averaged over processes."""
    whole = NetworkCall(network, call)
    if group.world_size == 1 or is_sharded(next(network.parameters())):
        return whole
    ids = [group.device] if group.device.type == "cuda" else None
    # forward_sync_buffers, as torch calls it since 2.13; a network's buffers are constants.
    sync = next(name for name in ("forward_sync_buffers", "broadcast_buffers") if name in _DDP_ARGUMENTS)
    options: dict[str, Any] = {"gradient_as_bucket_view": True, sync: False}
    return DistributedDataParallel(whole, device_ids=ids, **options)


@contextmanager
def no_gradient_sync(trained: nn.Module, network: nn.Module, stay: bool) -> Iterator[None]:
    """Keep gradients from being averaged over processes: more of the same step are to come."""
    sharded = hasattr(network, "set_requires_gradient_sync")
    if sharded:
        network.set_requires_gradient_sync(not stay)  # type: ignore[operator]
    waits = stay and isinstance(trained, DistributedDataParallel)
    with trained.no_sync() if waits else nullcontext():  # type: ignore[operator]
        yield


def whole(value: Tensor) -> Tensor:
    """Return a tensor with all its parts, which all processes hold together."""
    return value.full_tensor() if is_sharded(value) else value  # type: ignore[attr-defined]


def is_sharded(value: Tensor) -> bool:
    """Whether processes hold a tensor together: a DTensor, told without importing it."""
    return hasattr(value, "full_tensor")
