"""One step of training: the loss of its pieces, their gradient, and what it does to the state."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from sitkit.backbones import SiT
from sitkit.objectives import Field

from ..data.images import Split
from ..experiment.recipe import Recipe
from ..network.build import all_channels
from ..network.precision import compile_parts, computed_in, matmuls, parts
from ..support import random_streams
from ..support.errors import UserError
from .batches import Batch
from .process_group import ProcessGroup, no_gradient_sync, whole, wrap_ddp
from .state import TrainingState

CLIP_EPS = 1e-6
"""Added to the norm by which gradients are cut, as torch does."""


@dataclass(frozen=True, eq=False)
class StepResult:
    """What a step came to, as all processes know it."""

    gradient: float
    """The norm of the gradient, before it is cut."""
    sums: Tensor
    """Losses and their numbers by bin of t, (2, bins) float64, of all processes."""
    bad: tuple[int, ...] | None
    """None if the step was taken; or else it was not, for these sample numbers, none if only the gradient is bad."""
    stop: bool
    """Whether any process was asked to stop."""


class TrainingStep:
    """Changes a state by a step: all processes by the same."""

    def __init__(self, recipe: Recipe, split: Split, state: TrainingState, group: ProcessGroup):
        self.recipe = recipe
        self.state = state
        self.group = group
        self.shape = split.training.shape
        self.objective = recipe.objective.build(path=recipe.path.build())
        self.coupling = recipe.train.coupling.build() if recipe.train.coupling else None
        if self.coupling and split.classes and not getattr(self.coupling, "classwise", True):
            raise UserError(
                "train.coupling: where there are classes, give classwise = true, or noise would tell of them"
            )
        _economise(state.network, recipe)
        self.trained = wrap_ddp(state.network, all_channels(state.network, self.objective), group)
        self.field = computed_in(recipe.train.precision, self.trained)

    def __call__(self, step: int, pieces: list[Batch], stop: bool = False) -> StepResult:
        """Take step number `step` (from 1), or leave the state as it is if loss or gradient are not finite.

        Args:
            step: its number.
            pieces: this process's.
            stop: whether this process was asked to stop, which the outcome tells to all.
        """
        state = self.state
        losses = self.backward(pieces)
        told = torch.cat([self._norm()[None].to(losses), losses]).cpu()  # the step's one wait for the device
        norm, losses = float(told[0]), told[1:]
        flags = torch.tensor([float(not told.isfinite().all()), float(stop)]).double()
        t = torch.cat([piece.t for piece in pieces])
        sums = state.meters.sort(t, losses.nan_to_num())
        total = self.group.sum(torch.cat([flags, sums.flatten()]))
        sums, bad = total[2:].reshape(2, -1), None
        if total[0]:
            numbers = torch.cat([piece.numbers for piece in pieces])[~losses.isfinite()].tolist()
            bad = tuple(sorted(number for part in self.group.gather(numbers) for number in part))
        else:
            self._update(step, norm)
        state.optimizer.zero_grad()
        state.step = step
        return StepResult(norm, sums, bad, bool(total[1]))

    def backward(self, pieces: list[Batch]) -> Tensor:
        """Add the gradient of the mean loss, and return the loss of each sample, (B,), in the order of the pieces."""
        losses = []
        for n, piece in enumerate(pieces):
            with no_gradient_sync(self.trained, self.state.network, n < len(pieces) - 1):
                loss = self.losses(piece)
                with matmuls(self.recipe.train.precision):
                    (loss.mean() / len(pieces)).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return torch.cat(losses)

    def losses(self, piece: Batch) -> Tensor:
        """Return the loss of each sample of a piece, (P,) float32."""
        piece = piece.to(self.group.device)
        eps = random_streams.noise(self.recipe.seed, random_streams.Stream.NOISE, piece.numbers, self.shape)
        if self.coupling:
            eps = self.coupling(piece.x, eps, piece.labels)
        model: Field = self.field if piece.y is None else partial(self.field, y=piece.y)
        loss: Tensor = self.objective(model, piece.x, eps, piece.t)
        return loss

    def gradient_norm(self) -> float:
        """Return the norm of the gradient of all weights."""
        return float(self._norm())

    def _norm(self) -> Tensor:
        return whole(torch.nn.utils.get_total_norm(_gradients(self.state.network)))

    def _update(self, step: int, norm: float) -> None:
        recipe, state = self.recipe, self.state
        clip = recipe.optimizer.clip
        if clip != "none" and norm + CLIP_EPS > clip:  # or else all gradients would be read and written as they are
            torch._foreach_mul_(_gradients(state.network), clip / (norm + CLIP_EPS))
        for parameters in state.optimizer.param_groups:
            parameters["lr"] = learning_rate(recipe, step)
        state.optimizer.step()
        state.averages.update(step, state.network.parameters())


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the learning rate of a step (from 1)."""
    options, steps = recipe.optimizer, recipe.train.steps
    if step < options.warmup:
        return options.lr * step / options.warmup
    done = (step - options.warmup) / max(1, steps - options.warmup)
    falls = {"constant": 0.0, "linear": done, "cosine": (1 - math.cos(math.pi * done)) / 2}[options.schedule]
    return options.lr * (1 - (1 - options.final) * falls)


def _gradients(network: nn.Module) -> list[Tensor]:
    return [p.grad for p in network.parameters() if p.grad is not None]


def _economise(network: nn.Module, recipe: Recipe) -> None:
    """Let the parts of a network be compiled, and computed again for their gradient, as the recipe says."""
    if recipe.compute.compile:
        compile_parts(network)
    if recipe.compute.activation_checkpointing:  # outside compile: torch 2.13 silently compiles no block that does it
        for part in parts(network):
            keep = type(network) is not SiT  # which draws nothing at random; another network may have dropout
            part.forward = partial(recomputed, part.forward, use_reentrant=False, preserve_rng_state=keep)
