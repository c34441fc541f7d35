"""How many steps a sampler may take within a given NFE: found by counting them."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..data.images import Split
from ..experiment.recipe import Recipe
from ..experiment.sampler import Sampler
from ..experiment.slots import needs_loss_curve
from ..sampling.generator import SampleGenerator
from ..support.errors import UserError


class _FreeNetwork(nn.Module):
    """Replaces a network where only its calls are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1 / 3), requires_grad=False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Return a third of the state."""
        return self.weight * x

    def full(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Return twice as many channels, like a network with a learned variance."""
        return torch.cat([self(x, t), self(x, t)], dim=1)


def with_steps(recipe: Recipe, steps: int) -> Recipe:
    """Return a recipe whose sampler takes a number of steps."""
    return recipe.model_copy(update={"sampler": recipe.sampler.model_copy(update={"steps": steps})})


def count_calls(recipe: Recipe, split: Split) -> int:
    """Return the NFE of a recipe's sampler for a batch.

    Raises:
        UserError: the sampler cannot be used.
    """
    if needs_loss_curve(recipe.sampler.w):  # it needs images, and does not change the NFE
        sampler = recipe.sampler.model_copy(update={"w": Sampler().w})
        recipe = recipe.model_copy(update={"sampler": sampler})
    bare = replace(split, decode=lambda x: x.to(torch.uint8))
    labels = torch.zeros(1, dtype=torch.int64) if split.classes else None
    try:
        return SampleGenerator(_FreeNetwork(), recipe, bare, 0)(torch.zeros(1, dtype=torch.int64), labels).calls
    except ValueError as error:
        raise UserError(str(error)) from None


def within(recipe: Recipe, split: Split, calls: int) -> Recipe:
    """Return a recipe with as many steps as make at most `calls` NFE.

    Raises:
        UserError: one step makes more NFE, or the sampler cannot be used.
    """
    steps = calls
    while (counted := count_calls(with_steps(recipe, steps), split)) > calls:
        if steps == 1:
            raise UserError(f"one step makes {counted} NFE, and {calls} are allowed")
        steps = max(1, min(steps - 1, steps * calls // counted))
    while counted < calls and counted < (more := count_calls(with_steps(recipe, steps + 1), split)) <= calls:
        steps, counted = steps + 1, more
    return with_steps(recipe, steps)
