"""What a training run asks for, without a GPU and without data: size, work and memory, by the tensors themselves.

The network is built where tensors have shapes and no numbers, so that a count is a count and not a formula:

- Multiply-accumulates are those of one forward pass over one image: of linear maps, convolutions and attention. It is
  what DiT and SiT call GFLOPs (arXiv 2212.09748, table 1: 118.6 for XL/2 at 256); as operations they are twice as many.
  Training takes three times the forward pass: the gradients by weights and by inputs cost as much again each.
- Activations are what autograd keeps of a forward pass over one piece of the batch, each storage once, with the copies
  of weights in bf16. With `compute.activation_checkpointing` they are the inputs of all blocks and the inside of one.
  A block is a member of the network's `blocks`; a network without them is one block.
- Weights, gradients, AdamW's two moments and averages are float32. `fsdp` gives each process a part of all of them,
  `hybrid` a part of those of its machine, and both gather the weights outside blocks, and of two blocks at a time.

Not counted: what kernels, communication and PyTorch's allocator take for themselves, and gradients on their way back,
which are less than a block's activations. The sum is an upper estimate of the tensors that are alive at once: as
activations go, gradients come.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from ..experiment.recipe import Precision, Recipe
from ..support.errors import UserError
from .data_summary import DataSummary

MIB, GIB = 2**20, 2**30


def describe(recipe: Recipe, facts: DataSummary, processes: int = 1, machine: int = 8) -> str:
    """Return what a run asks for as a table for the reader.

    Args:
        recipe: the experiment.
        facts: of its data.
        processes: how many, one a GPU.
        machine: how many of them share a machine.

    Raises:
        UserError: the network cannot be built, or the batch not be shared out.
    """
    network = _shapes(recipe, facts.shape, facts.classes)
    macs = forward_macs(recipe, facts.shape, facts.classes)
    train, compute = recipe.train, recipe.compute
    images, share, piece = train.steps * train.batch, *_shares(recipe, processes)
    parts = memory(recipe, facts, processes, machine)
    unit, name = (GIB, "GiB") if sum(parts.values()) > GIB else (MIB, "MiB")
    tables: dict[str, dict[str, str]] = {
        f"{recipe.backbone.kind} for {recipe.data.kind}": {
            "data": f"{'images' if facts.images is None else f'{facts.images:,}'} of "
            f"{' x '.join(map(str, facts.shape))} in {facts.classes:,} classes"
            + ("" if facts.found else "; not found here, taken as stated"),
            "parameters": f"{sum(p.numel() for p in network.parameters()):,}",
            "forward pass, one image": f"{macs / 1e9:,.4g} G multiply-accumulates, which papers call GFLOPs",
            "training, one image": f"{6 * macs / 1e9:,.4g} G operations",
        },
        "run": {
            "steps": f"{train.steps:,}",
            "images": f"{images:,}, {train.batch:,} a step",
            "epochs": "not known: the data are absent" if facts.images is None else f"{images / facts.images:,.1f}",
            "operations": f"{6 * macs * images:.3g}",
        },
        f"each of {processes:,} processes, {compute.parallel}, {train.precision}": {
            "images a step": f"{share:,}" + (f", in pieces of {piece:,}" if piece < share else ""),
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
        UserError: the network cannot be built, or does what only numbers can tell, such as `item()`.
    """
    from torch.utils.flop_counter import FlopCounterMode

    network = _shapes(recipe, shape, classes)
    counter = FlopCounterMode(display=False)
    with _without_numbers(recipe), torch.device("meta"), torch.no_grad(), counter:
        _forward(network, 1, shape, classes)
    return int(counter.get_total_flops()) // 2


def memory(recipe: Recipe, facts: DataSummary, processes: int = 1, machine: int = 8) -> dict[str, int]:
    """Return the bytes of the first GPU by what they hold; arguments as for `describe`."""
    network = _shapes(recipe, facts.shape, facts.classes)
    shards = {"ddp": 1, "fsdp": processes, "hybrid": min(processes, machine)}[recipe.compute.parallel]
    parameters = [*network.parameters()]
    held = sum(_first_part(parameter, shards) for parameter in parameters)
    buffers = sum(buffer.nbytes for buffer in network.buffers())
    averages = 1 + len(recipe.ema.more) + len(recipe.ema.widths)
    _, piece = _shares(recipe, processes)
    parts = {
        "weights": held + buffers,
        "gradients": held,
        "moments of AdamW": 2 * held + 4 * len(parameters),  # and a step's number for every parameter
        f"averages ({averages})": averages * (held + buffers),
        "activations": activations(recipe, facts.shape, facts.classes, piece),
        "a piece of the batch": 5 * 4 * piece * torch.Size(facts.shape).numel(),  # x, eps, x_t, output and target
    }
    return parts if shards == 1 else parts | {"gathered weights": _gathered(network, recipe.train.precision)}


def activations(recipe: Recipe, shape: tuple[int, int, int], classes: int, batch: int) -> int:
    """Return the bytes that autograd keeps of a forward pass over so many images, as the module says.

    Raises:
        UserError: the network cannot be built.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    kept: list[dict[int, Tensor]] = [{}]  # storages kept, one table for each stretch outside or inside a block
    entered: list[int] = []  # bytes of the tokens that enter each block
    with _without_numbers(recipe), FakeTensorMode():
        network = _build(recipe, shape, classes)
        own = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()._cdata
            if storage not in own and not any(storage in table for table in kept):
                kept[-1][storage] = tensor  # which keeps the storage alive, and its address its own
            return tensor

        def enter(block: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            entered.append(arguments[0].nbytes)
            kept.append({})

        def leave(block: nn.Module, arguments: tuple[Tensor, ...], result: Tensor) -> None:
            kept.append({})

        for block in _blocks(network) or [network]:
            block.register_forward_pre_hook(enter)
            block.register_forward_hook(leave)
        half = recipe.train.precision == "bf16"
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16, enabled=half):
            _forward(network, batch, shape, classes).square().mean()
        sizes = [sum(tensor.untyped_storage().nbytes() for tensor in table.values()) for table in kept]
    inside = sizes[1::2]
    if not recipe.compute.activation_checkpointing:
        return sum(sizes)
    return sum(sizes[::2]) + sum(entered) + max(inside)


def _shapes(recipe: Recipe, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return the network without its numbers."""
    with _without_numbers(recipe), torch.device("meta"):
        return _build(recipe, shape, classes)


@contextmanager
def _without_numbers(recipe: Recipe) -> Iterator[None]:
    """Name the network that asks for numbers where there are none."""
    try:
        yield
    except (RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"backbone = {recipe.backbone.kind} cannot be measured by shapes alone: {reason}") from error


def _build(recipe: Recipe, shape: tuple[int, int, int], classes: int) -> nn.Module:
    if shape[1] != shape[2]:
        raise UserError(f"images must be square, got {shape[1]} x {shape[2]}")
    network: nn.Module = recipe.backbone.build(input_size=shape[1], in_channels=shape[0], num_classes=classes)
    return network


def _forward(network: nn.Module, batch: int, shape: tuple[int, int, int], classes: int) -> Tensor:
    call = partial(network, y=torch.zeros(batch, dtype=torch.long)) if classes else network
    output: Tensor = call(torch.zeros(batch, *shape), torch.zeros(batch))
    return output


def _shares(recipe: Recipe, processes: int) -> tuple[int, int]:
    """Return the images of a process a step, and of one of its pieces."""
    pieces = recipe.compute.gradient_accumulation
    if recipe.train.batch % (processes * pieces):
        raise UserError(
            f"train.batch = {recipe.train.batch} must divide by processes times compute.gradient_accumulation, "
            f"{processes} x {pieces}"
        )
    return recipe.train.batch // processes, recipe.train.batch // processes // pieces


def _blocks(network: nn.Module) -> list[nn.Module]:
    blocks = getattr(network, "blocks", None)
    return [*blocks] if isinstance(blocks, nn.ModuleList) else []


def _first_part(parameter: Tensor, shards: int) -> int:
    """Return the bytes of the first of so many parts of a parameter, cut along its first dimension."""
    rows = len(parameter) if parameter.ndim else 1
    return -(-rows // shards) * (parameter.nbytes // max(1, rows))


def _gathered(network: nn.Module, precision: Precision) -> int:
    """Return the bytes of all weights outside blocks, and of two blocks, which are bfloat16 if matmuls are."""
    sizes = [sum(p.nbytes for p in block.parameters()) for block in _blocks(network)]
    two = sum(sorted(sizes)[-2:]) // (2 if precision == "bf16" else 1)
    return sum(p.nbytes for p in network.parameters()) - sum(sizes) + two
