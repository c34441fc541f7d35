"""Single training steps of a small network."""

import torch

from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.training.batches import Batches
from sitkit.recipes.training.process_group import ProcessGroup
from sitkit.recipes.training.state import TrainingState
from sitkit.recipes.training.step import TrainingStep

TINY = ["backbone.hidden_size=16", "backbone.depth=3", "backbone.num_heads=2", "train.batch=8", "train.steps=100"]
CPU = torch.device("cpu")


def made(*settings: str, device: torch.device = CPU) -> tuple[TrainingStep, Batches]:
    recipe, group = read_recipe("digits", [*TINY, *settings]), ProcessGroup(device=device)
    split = recipe.data.build()
    return TrainingStep(recipe, split, TrainingState(recipe, split, group), group), Batches(recipe, split, group)
