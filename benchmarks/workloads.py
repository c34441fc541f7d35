"""The timed work of each network: a forward pass and a training step.

All training steps use fused AdamW, gradient clipping at norm 1 and an EMA update by a single call. The step of sitkit
is that of its recipes, including data and logged statistics. The others use the shortest possible step.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import count
from typing import Any

import shapes
import torch
from plain_sit import PlainSiT
from shapes import CHANNELS, CLASSES, PATCH, Setup
from torch import Tensor, nn

from sitkit.recipes.data.images import NoiseFunction, Split
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.experiment.recipe import Recipe
from sitkit.recipes.support.allocator import keep_freed_memory
from sitkit.recipes.training.batches import Batches
from sitkit.recipes.training.process_group import ProcessGroup
from sitkit.recipes.training.state import TrainingState
from sitkit.recipes.training.step import TrainingStep


@dataclass(frozen=True)
class Workload:
    """The timed calls of a setup."""

    forward: Callable[[], object]
    step: Callable[[], object]


class Latents:
    """A data set of random latents in memory."""

    def __init__(self, side: int, number: int = 64):
        generator = torch.Generator().manual_seed(0)
        self.values = torch.randn(number, CHANNELS, side, side, generator=generator)
        self.labels = torch.randint(CLASSES, (number,), generator=generator)
        self.shape = (CHANNELS, side, side)

    def __len__(self) -> int:
        return len(self.labels)

    def states(self, numbers: Tensor, flips: Tensor, noise: NoiseFunction, /) -> Tensor:
        """Return the latents."""
        return self.values[numbers]

    def read(self, numbers: Tensor, /) -> Tensor:
        """Not available: there are no pixels."""
        raise NotImplementedError


def build(setup: Setup, group: ProcessGroup | None = None) -> Workload:
    """Return the timed calls of a setup. It sets threads and precision of the whole process.

    Args:
        setup: with several processes only for sitkit.
        group: the processes.
    """
    torch.set_num_threads(setup.threads)
    torch.manual_seed(0)
    if setup.mode == "tf32":
        torch.set_float32_matmul_precision("high")
    if setup.network == "matrix":
        return matmul_workload(setup)
    return sitkit_workload(setup, group) if setup.network == "sitkit" else other_workload(setup)


def matmul_workload(setup: Setup) -> Workload:
    """Return a matmul of two square matrices."""
    dtype = torch.bfloat16 if setup.mode == "bf16" else torch.float32
    one, other, out = (torch.randn(shapes.MATRIX, shapes.MATRIX, device=setup.device).to(dtype) for _ in range(3))
    return Workload(lambda: torch.mm(one, other, out=out), lambda: None)


def randomise(network: nn.Module) -> None:
    """Initialise all parameters at random: values of zero could be faster."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.02)


@dataclass(frozen=True, eq=False)
class TrainingParts:
    """The components of a training step of sitkit."""

    recipe: Recipe
    state: TrainingState
    take: TrainingStep
    batches: Batches


def recipe_of(setup: Setup) -> Recipe:
    """Return the recipe of a setup."""
    sizes = zip(("depth", "hidden_size", "num_heads"), setup.shape, strict=True)
    return read_recipe(
        "imagenet256-s",
        [
            "backbone.kind=sit",
            f"backbone.patch_size={PATCH}",
            *(f"backbone.{key}={value}" for key, value in sizes),
            "backbone.learn_sigma=false",
            f"train.batch={setup.batch}",
            f"train.precision={setup.mode}",
            "optimizer.clip=1.0",
            f"compute.gradient_accumulation={setup.micro_batches}",
            f"compute.compile={str(setup.compiled).lower()}",
            f"compute.activation_checkpointing={str(setup.activation_checkpointing).lower()}",
        ],
    )


def parts(setup: Setup, group: ProcessGroup | None = None) -> TrainingParts:
    """Return the components of a training step, built as in `sitkit train`."""
    if setup.device == "cpu":
        keep_freed_memory()
    recipe, images = recipe_of(setup), Latents(setup.side)
    split, group = (
        Split(images, images, tuple(map(str, range(CLASSES)))),
        group or ProcessGroup(device=torch.device(setup.device)),
    )
    state = TrainingState(recipe, split, group)
    randomise(state.network)
    return TrainingParts(recipe, state, TrainingStep(recipe, split, state, group), Batches(recipe, split, group))


def sitkit_workload(setup: Setup, group: ProcessGroup | None = None) -> Workload:
    """Return the timed calls of sitkit, for the part of the batch of this process."""
    made, numbers = parts(setup, group), count(1)

    def step() -> None:
        number = next(numbers)
        made.take(number, made.batches(number))

    share = replace(setup, batch=setup.batch // setup.processes)
    return Workload(forward(made.state.network, share, made.state.network), step)


def forward(network: nn.Module, setup: Setup, call: Callable[[Tensor, Tensor, Tensor], object]) -> Callable[[], object]:
    """Return a forward pass without gradients."""
    x = torch.randn(setup.batch, CHANNELS, setup.side, setup.side, device=setup.device)
    t, y = torch.rand(len(x), device=setup.device), torch.randint(CLASSES, (len(x),), device=setup.device)

    @torch.no_grad()
    def run() -> None:
        network.eval()
        with torch.autocast(setup.device, torch.bfloat16, enabled=setup.mode == "bf16"):
            call(x, t, y)
        network.train()

    return run


def other_workload(setup: Setup) -> Workload:
    """Return the timed calls of another network."""
    network, call = NETWORKS[setup.network](setup)
    randomise(network)
    average = copy.deepcopy(network).requires_grad_(False)
    blocks = network.blocks if setup.network == "plain" else network.transformer_blocks
    if setup.compiled:
        for block in blocks:
            block.compile()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    images = Latents(setup.side)

    def step() -> None:
        rows = torch.randint(len(images), (setup.batch,))
        x, y = images.values[rows].to(setup.device), images.labels[rows].to(setup.device)
        eps, t = torch.randn_like(x), torch.rand(len(x), device=setup.device)
        share = t.reshape(-1, 1, 1, 1)
        with torch.autocast(setup.device, torch.bfloat16, enabled=setup.mode == "bf16"):
            output = call(share * x + (1 - share) * eps, t, y)
        loss = (output.float() - (x - eps)).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_([*average.parameters()], [*network.parameters()], 1e-4)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(setup.network)

    return Workload(forward(network, setup, call), step)


def plain(setup: Setup) -> tuple[Any, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    """Return the plain implementation, with the position embeddings of sitkit."""
    depth, width, heads = setup.shape
    network = PlainSiT(side=setup.side, width=width, depth=depth, heads=heads, classes=CLASSES).to(setup.device)
    return network, network


def diffusers(setup: Setup) -> tuple[Any, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    """Return the DiT of diffusers of the same shape, which embeds time and label in every block."""
    depth, width, heads = setup.shape
    network = import_module("diffusers").DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=depth,
        sample_size=setup.side,
        patch_size=PATCH,
        num_embeds_ada_norm=CLASSES,
    )
    network.to(setup.device)
    return network, lambda x, t, y: network(x, (1000 * t).long(), y).sample


NETWORKS = {"plain": plain, "diffusers": diffusers}
