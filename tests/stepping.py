"""Steps of a small network, to be taken one by one."""

import torch

from sitkit.recipes.reading import read
from sitkit.recipes.train.batches import Batches
from sitkit.recipes.train.processes import Processes
from sitkit.recipes.train.state import State
from sitkit.recipes.train.step import Step

TINY = ["backbone.hidden_size=16", "backbone.depth=3", "backbone.num_heads=2", "train.batch=8", "train.steps=100"]
CPU = torch.device("cpu")


def made(*settings: str, device: torch.device = CPU) -> tuple[Step, Batches]:
    recipe, team = read("digits", [*TINY, *settings]), Processes(device=device)
    split = recipe.data.build()
    return Step(recipe, split, State(recipe, split, team), team), Batches(recipe, split, team)
