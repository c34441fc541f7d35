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
from .precision import compile_blocks


def build_network(recipe: Recipe, split: Split) -> nn.Module:
    """Return the recipe's network for the recipe's data, with initial weights that depend on the seed alone."""
    channels, height, width = split.training.shape
    if height != width:
        raise UserError(f"images must be square, got {height} x {width}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network: nn.Module = recipe.backbone.build(
            input_size=height, in_channels=channels, num_classes=len(split.classes)
        )
    objective = recipe.objective.build(path=recipe.path.build())
    image = torch.zeros(1, channels, height, width)
    try:
        with torch.no_grad():
            objective(all_channels(network, objective), image, image, torch.full((1,), 0.5))
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"backbone and objective do not fit (hybrid needs backbone.learn_sigma = true): {error}"
        ) from None
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
