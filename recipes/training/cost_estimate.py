"""An estimate of a training run without a GPU and without data: parameters, operations and memory.

The network is built from tensors that have shapes and no data, so everything is counted rather than given by formulas:

- Multiply-accumulates are those of the matmuls, convolutions and attention of one forward pass over one image. DiT and
  SiT call them GFLOPs (arXiv 2212.09748, table 1: 118.6 for XL/2 at 256); there are twice as many operations. Training
  takes three times the forward pass: the gradients by weights and by inputs each cost as much again.
- Activations are the tensors that autograd saves in a forward pass over one micro-batch, each storage once, with the
  bf16 copies of weights. With `compute.activation_checkpointing` they are the inputs of all blocks and the activations
  inside one. Blocks are the members of the network's `blocks`; a network without them is one block.
- Weights, gradients, AdamW's two moments and EMA are float32. `fsdp` shards all of them over all processes, `hybrid`
  over those of a machine. Both gather the weights outside blocks, and those of two blocks at a time.

Not counted: the memory of kernels, communication and PyTorch's allocator, and gradients of activations, which are
smaller than a block's activations. The sum is an upper bound of the tensors that are alive at once, since activations
are freed as gradients are computed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..experiment.field_types import Precision
from ..experiment.recipe import Recipe
from ..network.build import build_backbone
from ..network.conditions import bind_conditions
from ..support.errors import UserError
from .batches import micro_batch_size
from .data_summary import DataSummary

MIB, GIB = 2**20, 2**30


def describe(recipe: Recipe, data: DataSummary, processes: int = 1, machine: int = 8) -> str:
    """Return the estimate of a run as a printable table.

    Args:
        recipe: the experiment.
        data: the shape and size of its data.
        processes: the number of processes, one per GPU.
        machine: the number of them on a machine.

    Raises:
        UserError: the network cannot be built, or the batch cannot be split evenly.
    """
    network = _meta_network(recipe, data.shape, data.classes)
    macs = forward_macs(recipe, data.shape, data.classes)
    train, compute = recipe.train, recipe.compute
    images, per_process, micro_batch = train.steps * train.batch, *_batch_sizes(recipe, processes)
    parts = memory(recipe, data, processes, machine)
    unit, name = (GIB, "GiB") if sum(parts.values()) > GIB else (MIB, "MiB")
    tables: dict[str, dict[str, str]] = {
        f"{recipe.backbone.kind} for {recipe.data.kind}": {
            "data": f"{'images' if data.images is None else f'{data.images:,}'} of "
            f"{' x '.join(map(str, data.shape))} in {data.classes:,} classes"
            + ("" if data.found else "; not found here, assumed"),
            "parameters": f"{sum(p.numel() for p in network.parameters()):,}",
            "forward pass, one image": f"{macs / 1e9:,.4g} G multiply-accumulates, which papers call GFLOPs",
            "training, one image": f"{6 * macs / 1e9:,.4g} G operations",
        },
        "run": {
            "steps": f"{train.steps:,}",
            "images": f"{images:,}, {train.batch:,} a step",
            "epochs": "not known: the data are absent" if data.images is None else f"{images / data.images:,.1f}",
            "operations": f"{6 * macs * images:.3g}",
        },
        f"each of {processes:,} processes, {compute.parallel}, {train.precision}": {
            "images a step": f"{per_process:,}"
            + (f", in micro-batches of {micro_batch:,}" if micro_batch < per_process else ""),
            **{part: f"{size / unit:8.2f} {name}" for part, size in parts.items()},
            "in all, at most about": f"{sum(parts.values()) / unit:8.2f} {name}",
        },
    }
    width = max(len(key) for table in tables.values() for key in table)
    lines = [[head, *(f"  {key:<{width}}  {value}" for key, value in rows.items())] for head, rows in tables.items()]
    return "\n\n".join("\n".join(block) for block in lines)


def forward_macs(recipe: Recipe, shape: tuple[int, int, int], classes: int) -> int:
    """Return the multiply-accumulates of the recipe's network on one image (C, H, W).

    Raises:
        UserError: the network cannot be built, or needs the values of tensors, as `item()` does.
    """
    from torch.utils.flop_counter import FlopCounterMode

    network = _meta_network(recipe, shape, classes)
    counter = FlopCounterMode(display=False)
    with _without_data(recipe), torch.device("meta"), torch.no_grad(), counter:
        _forward(recipe, network, 1, shape, classes)
    return int(counter.get_total_flops()) // 2


def memory(recipe: Recipe, data: DataSummary, processes: int = 1, machine: int = 8) -> dict[str, int]:
    """Return the memory of the first GPU in bytes, by use. Arguments are those of `describe`."""
    network = _meta_network(recipe, data.shape, data.classes)
    shards = {"ddp": 1, "fsdp": processes, "hybrid": min(processes, machine)}[recipe.compute.parallel]
    parameters = [*network.parameters()]
    weights = sum(_first_shard(parameter, shards) for parameter in parameters)
    buffers = sum(buffer.nbytes for buffer in network.buffers())
    emas = len(recipe.ema.names)
    _, micro_batch = _batch_sizes(recipe, processes)
    parts = {
        "weights": weights + buffers,
        "gradients": weights,
        "moments of AdamW": 2 * weights + 4 * len(parameters),  # and the step of each parameter
        f"EMA ({emas})": emas * (weights + buffers),
        "activations": activations(recipe, data.shape, data.classes, micro_batch),
        "a micro-batch": 5 * 4 * micro_batch * torch.Size(data.shape).numel(),  # x, eps, x_t, output and target
    }
    return parts if shards == 1 else parts | {"gathered weights": _gathered(network, recipe.train.precision)}


def activations(recipe: Recipe, shape: tuple[int, int, int], classes: int, batch: int) -> int:
    """Return the bytes of the activations of a forward pass over a batch, as the module's docstring defines them.

    Raises:
        UserError: the network cannot be built.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    saved: list[dict[int, Tensor]] = [{}]  # storages that autograd saves, by turns outside and inside a block
    inputs: list[int] = []  # bytes of the input of each block
    with _without_data(recipe), FakeTensorMode():
        network = build_backbone(recipe, shape, classes)
        constant = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}

        def save(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()._cdata
            if storage not in constant and not any(storage in table for table in saved):
                saved[-1][storage] = tensor  # a reference, so that no other storage has the same address
            return tensor

        def enter(block: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            inputs.append(arguments[0].nbytes)
            saved.append({})

        def leave(block: nn.Module, arguments: tuple[Tensor, ...], result: Tensor) -> None:
            saved.append({})

        for block in _blocks(network) or [network]:
            block.register_forward_pre_hook(enter)
            block.register_forward_hook(leave)
        bf16 = recipe.train.precision == "bf16"
        hooks = torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            _forward(recipe, network, batch, shape, classes).square().mean()
        sizes = [sum(tensor.untyped_storage().nbytes() for tensor in table.values()) for table in saved]
    inside = sizes[1::2]
    if not recipe.compute.activation_checkpointing:
        return sum(sizes)
    return sum(sizes[::2]) + sum(inputs) + max(inside)


def _meta_network(recipe: Recipe, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return the network on the meta device."""
    with _without_data(recipe), torch.device("meta"):
        return build_backbone(recipe, shape, classes)


@contextmanager
def _without_data(recipe: Recipe) -> Iterator[None]:
    """Raise an error that names the network if it needs the values of tensors that have none."""
    try:
        yield
    except (RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"backbone = {recipe.backbone.kind} cannot be measured by shapes alone: {reason}") from error


def _forward(recipe: Recipe, network: nn.Module, batch: int, shape: tuple[int, int, int], classes: int) -> Tensor:
    x = torch.zeros(batch, *shape)
    labels = torch.zeros(batch, dtype=torch.long) if classes else None
    call = bind_conditions(network, labels, x if recipe.conditions_on_source else None)
    output: Tensor = call(x, torch.zeros(batch))
    return output


def _batch_sizes(recipe: Recipe, processes: int) -> tuple[int, int]:
    """Return the images per process and step, and per micro-batch."""
    micro_batch = micro_batch_size(recipe, processes)
    return micro_batch * recipe.compute.gradient_accumulation, micro_batch


def _blocks(network: nn.Module) -> list[nn.Module]:
    blocks = getattr(network, "blocks", None)
    return [*blocks] if isinstance(blocks, nn.ModuleList) else []


def _first_shard(parameter: Tensor, shards: int) -> int:
    """Return the bytes of the first shard of a parameter, which is split along its first dimension."""
    rows = len(parameter) if parameter.ndim else 1
    return -(-rows // shards) * (parameter.nbytes // max(1, rows))


def _gathered(network: nn.Module, precision: Precision) -> int:
    """Return the bytes of all weights outside blocks, and of those of two blocks, which are bfloat16 if matmuls are."""
    sizes = [sum(p.nbytes for p in block.parameters()) for block in _blocks(network)]
    two = sum(sorted(sizes)[-2:]) // (2 if precision == "bf16" else 1)
    return sum(p.nbytes for p in network.parameters()) - sum(sizes) + two
