"""The learning-rate schedule."""

import math

from ..experiment.recipe import Recipe


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the learning rate of a step (from 1)."""
    options, steps = recipe.optimizer, recipe.train.steps
    if step < options.warmup:
        return options.lr * step / options.warmup
    done = (step - options.warmup) / max(1, steps - options.warmup)
    decay = {"constant": 0.0, "linear": done, "cosine": (1 - math.cos(math.pi * done)) / 2}[options.schedule]
    return options.lr * (1 - (1 - options.final) * decay)
