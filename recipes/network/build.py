"""Build the network of a recipe, and load it from a checkpoint."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from sitkit.objectives import Hybrid, Objective

from ..data.images import Split
from ..experiment.recipe import Recipe
from ..storage import checkpoints
from ..support.errors import UserError
from .checkpoint_weights import read_ema
from .conditions import bind_conditions
from .precision import compile_blocks

HINTS = {
    "hybrid": " (hybrid needs backbone.learn_sigma = true)",
    "bridging": " (bridging needs a backbone with a parameter out_channels)",
}
"""What a backbone needs for an objective."""


def build_network(recipe: Recipe, split: Split) -> nn.Module:
    """Return the recipe's network for the recipe's data, with initial weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = build_backbone(recipe, split.training.shape, len(split.classes))
    objective = recipe.build_objective()
    image = torch.zeros(1, *split.training.shape)
    start = (image, image) if recipe.two_sided else (image,)
    try:
        with torch.no_grad():
            source = image if recipe.conditions_on_source else None
            model = bind_conditions(all_channels(network, objective), None, source)
            objective(model, image, *start, torch.full((1,), 0.5))
    except (ValueError, AttributeError) as error:
        needs = HINTS.get(recipe.objective.kind, "")
        raise UserError(f"backbone and objective do not fit{needs}: {error}") from None
    return network


def build_backbone(recipe: Recipe, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return the recipe's network for states (C, H, W), with as many channels as its source and objective need.

    Raises:
        UserError: images are not square, or the backbone refuses its fields.
    """
    channels, height, width = shape
    if height != width:
        raise UserError(f"images must be square, got {height} x {width}")
    inputs, outputs = channels * (1 + recipe.conditions_on_source), channels * (1 + recipe.two_sided)
    sizes = {"input_size": height, "in_channels": inputs, "num_classes": classes}
    network: nn.Module = recipe.backbone.build(**sizes, **({"out_channels": outputs} if outputs != inputs else {}))
    return network


def all_channels(network: nn.Module, objective: Objective) -> Callable[..., Tensor]:
    """Return the network as the objective calls it: with all output channels for `Hybrid`, else with the first ones."""
    return network.full if isinstance(objective, Hybrid) else network  # type: ignore[return-value]


def load_network(recipe: Recipe, split: Split, checkpoint: Path, device: torch.device, ema: str = "ema") -> nn.Module:
    """Return the network of a checkpoint with the weights of an EMA (`read_ema`), ready to sample with.

    Raises:
        UserError: the checkpoint is damaged, or of another network.
    """
    network = build_network(recipe, split)
    try:
        network.load_state_dict(read_ema(checkpoint, ema))
    except RuntimeError as error:
        raise checkpoints.mismatch_error(checkpoint, error) from None
    return network.to(device).eval()


def load_for_sampling(
    recipe: Recipe, split: Split, checkpoint: Path, device: torch.device, ema: str = "ema"
) -> nn.Module:
    """Return the network of `load_network`, compiled if the recipe has `compute.compile`.

    Raises:
        UserError: the checkpoint is damaged, or of another network; or there is no compiler.
    """
    network = load_network(recipe, split, checkpoint, device, ema)
    if recipe.compute.compile:
        compile_blocks(network)
    return network
