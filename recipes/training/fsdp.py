"""FSDP2: sharding of networks, and writing and reading of sharded tensors.

It is imported only where weights are sharded, as its imports of torch take half a second.
"""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import AsyncSaveResponse, async_save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from ..experiment.field_types import Precision
from .process_group import ProcessGroup


def shard(networks: list[nn.Module], group: ProcessGroup, parallel: str, precision: Precision = "float32") -> None:
    """Shard networks in place, block by block.

    With `bf16`, the weights of blocks are gathered in bfloat16, to which autocast would round them anyway. This halves
    the communication and needs no second copy of the weights. Gradients are reduced in float32, and weights outside of
    blocks, such as the embedding of times, stay float32.

    Args:
        networks: the networks.
        group: the processes.
        parallel: `fsdp` shards over all processes, `hybrid` over those of each machine.
        precision: of the networks' matmuls.
    """
    policy = MixedPrecisionPolicy()
    if precision == "bf16":  # inputs of blocks stay float32: autocast rounds what enters matmuls
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    kind = group.device.type
    if parallel == "fsdp":
        mesh = init_device_mesh(kind, (group.world_size,), mesh_dim_names=("shard",))
    else:
        machines = group.world_size // group.local_world_size
        mesh = init_device_mesh(kind, (machines, group.local_world_size), mesh_dim_names=("replicate", "shard"))
    for network in networks:
        for block in getattr(network, "blocks", ()):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(network, mesh=mesh, reshard_after_forward=True)  # or EMA weights stay gathered after an image grid
        if hasattr(network, "full"):
            register_fsdp_forward_method(network, "full")


def shard_like(value: Tensor, like: DTensor) -> Tensor:
    """Return a full tensor sharded as another is."""
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def write(folder: Path, values: dict[str, Tensor], group: dist.ProcessGroup | None) -> Future[Any]:
    """Copy this process's shards of tensors, and start to write the copy to safetensors files."""
    storage = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    copies = {key: value.detach().clone() if value.device.type == "cpu" else value for key, value in values.items()}
    saving = async_save(copies, storage_writer=storage, process_group=group)
    return saving.upload_completion if isinstance(saving, AsyncSaveResponse) else saving


def read(folder: Path, wanted: dict[str, Tensor], optional: dict[str, Tensor]) -> dict[str, Tensor]:
    """Read the tensors that all processes wrote, into full tensors or any sharding of them.

    Args:
        folder: that was written to.
        wanted: tensors to read into, by name.
        optional: further tensors, which the folder may lack.
    """
    reader = HuggingFaceStorageReader(str(folder))
    lacking = reader.read_metadata().state_dict_metadata.keys().isdisjoint(optional)
    tensors = wanted if lacking else wanted | optional
    load(tensors, storage_reader=reader, no_dist=not dist.is_initialized())
    return tensors
