"""One step of training: the loss of its micro-batches, the gradient, and the update of the state."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sitkit.backbones import SiT

from ..data.images import Split
from ..experiment.recipe import Recipe
from ..network.build import all_channels
from ..network.conditions import bind_conditions
from ..network.precision import blocks_of, compile_blocks, matmul_precision, with_precision
from ..runs.source_data import made_of_images, observation
from ..support import random_streams
from ..support.errors import UserError
from ..support.random_streams import Stream
from .batches import MicroBatch
from .learning_rate import learning_rate
from .process_group import ProcessGroup, full_tensor, no_gradient_sync, wrap_ddp
from .state import TrainingState

CLIP_EPS = 1e-6
"""Added to the norm when gradients are clipped, as in torch."""


@dataclass(frozen=True, eq=False)
class StepResult:
    """The result of a step, equal on all processes."""

    gradient: float
    """The norm of the gradient before clipping."""
    sums: Tensor
    """Sums of losses, and numbers of samples, by bin of t, over all processes: (2, bins) float64."""
    nonfinite: tuple[int, ...] | None
    """None if the step was taken. Otherwise the numbers of the samples whose loss is not finite, perhaps none."""
    stop: bool
    """Whether any process was asked to stop."""


class TrainingStep:
    """Updates a state by one step, equally on all processes."""

    def __init__(self, recipe: Recipe, split: Split, state: TrainingState, group: ProcessGroup):
        self.recipe = recipe
        self.state = state
        self.group = group
        self.shape = split.training.shape
        self.objective = recipe.build_objective()
        self.make_source = made_of_images(recipe, self.shape)
        self.coupling = recipe.train.coupling.build() if recipe.train.coupling else None
        if self.coupling and split.classes and not getattr(self.coupling, "classwise", True):
            raise UserError(
                "train.coupling: these data have classes, so set classwise = true; otherwise noise depends on the class"
            )
        _compile_and_checkpoint(state.network, recipe)
        self.network = wrap_ddp(state.network, all_channels(state.network, self.objective), group)
        self.field = with_precision(recipe.train.precision, self.network)

    def __call__(self, step: int, micro_batches: list[MicroBatch], stop: bool = False) -> StepResult:
        """Take a step, or leave the state unchanged if the loss or the gradient is not finite.

        Args:
            step: its number, from 1.
            micro_batches: this process's.
            stop: whether this process was asked to stop. The result is true on all processes if it is on one.
        """
        state = self.state
        losses = self.backward(micro_batches)
        values = torch.cat([self._norm()[None].to(losses), losses]).cpu()  # the step's only synchronization
        norm, losses = float(values[0]), values[1:]
        flags = torch.tensor([float(not values.isfinite().all()), float(stop)]).double()
        t = torch.cat([micro_batch.t for micro_batch in micro_batches])
        sums = state.meters.sums_by_bin(t, losses.nan_to_num())
        total = self.group.sum(torch.cat([flags, sums.flatten()]))
        sums, nonfinite = total[2:].reshape(2, -1), None
        if total[0]:
            numbers = torch.cat([micro_batch.numbers for micro_batch in micro_batches])[~losses.isfinite()].tolist()
            nonfinite = tuple(sorted(number for part in self.group.gather(numbers) for number in part))
        else:
            self._update(step, norm)
        state.optimizer.zero_grad()
        state.step = step
        return StepResult(norm, sums, nonfinite, bool(total[1]))

    def backward(self, micro_batches: list[MicroBatch]) -> Tensor:
        """Accumulate the gradient of the mean loss, and return the loss of each sample, (B,), in order."""
        losses, count = [], len(micro_batches)
        for n, micro_batch in enumerate(micro_batches):
            with no_gradient_sync(self.network, self.state.network, n < count - 1):
                loss = self.losses(micro_batch)
                with matmul_precision(self.recipe.train.precision):
                    (loss.mean() / count).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return torch.cat(losses)

    def losses(self, micro_batch: MicroBatch) -> Tensor:
        """Return the loss of each sample of a micro-batch, (M,) float32."""
        batch = micro_batch.to(self.group.device)
        source, condition = self._source(batch)
        model = bind_conditions(self.field, batch.y, condition if self.recipe.conditions_on_source else None)
        noise = random_streams.noise(self.recipe.seed, Stream.NOISE, batch.numbers, self.shape)
        start = noise if source is None or not self.recipe.two_sided else source
        if self.coupling:
            start = self.coupling(batch.x, start, batch.labels)
        ends = (batch.x, start, noise) if self.recipe.two_sided else (batch.x, start)
        loss: Tensor = self.objective(model, *ends, batch.t)
        return loss

    def _source(self, batch: MicroBatch) -> tuple[Tensor | None, Tensor | None]:
        """Return the source of each sample and its observation, (M, C, H, W); None if nothing depends on them."""
        if batch.source is not None or not (self.make_source or self.recipe.two_sided):
            return batch.source, batch.source
        noise = random_streams.noise(self.recipe.seed, Stream.SOURCE, batch.numbers, self.shape)
        if self.make_source is None:
            return noise, noise
        made = batch.x, noise, batch.labels
        return self.make_source(*made), observation(self.make_source, *made)

    def gradient_norm(self) -> float:
        """Return the norm of the gradient of all weights."""
        return float(self._norm())

    def _norm(self) -> Tensor:
        return full_tensor(torch.nn.utils.get_total_norm(_gradients(self.state.network)))

    def _update(self, step: int, norm: float) -> None:
        recipe, state = self.recipe, self.state
        clip = recipe.optimizer.clip
        if clip != "none" and norm + CLIP_EPS > clip:  # otherwise a pass over all gradients is saved
            torch._foreach_mul_(_gradients(state.network), clip / (norm + CLIP_EPS))
        for parameters in state.optimizer.param_groups:
            parameters["lr"] = learning_rate(recipe, step)
        state.optimizer.step()
        state.ema_weights.update(step, state.network.parameters())


def _gradients(network: nn.Module) -> list[Tensor]:
    return [p.grad for p in network.parameters() if p.grad is not None]


def _compile_and_checkpoint(network: nn.Module, recipe: Recipe) -> None:
    """Enable compilation and activation checkpointing of a network's blocks, as the recipe says."""
    if recipe.compute.compile:
        compile_blocks(network)
    if recipe.compute.activation_checkpointing:  # outside compile: torch 2.13 silently compiles no block that does it
        for block in blocks_of(network):
            random = type(network) is not SiT  # SiT draws no random numbers; another network may have dropout
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=random)
