"""Training, from a recipe to a folder of checkpoints."""

import copy
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from .. import checkpoints, randomness
from ..data.images import Split
from ..intervals import train_interval
from ..problem import Problem
from ..progress import progress
from ..reading import to_toml
from ..recipe import Recipe
from ..run import Run
from ..sample.generate import all_channels, balanced_labels, build_network, draw
from ..sample.pictures import label_grid, save_picture

GRID_ROWS = 8


@dataclass
class State:
    """What training changes: the network, its average, the optimiser, and the number of steps done."""

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.AdamW
    step: int = 0

    @classmethod
    def create(cls, recipe: Recipe, split: Split, device: torch.device) -> "State":
        """Return the state before the first step."""
        network = build_network(recipe, split).to(device)
        options = recipe.optimizer
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=options.lr, betas=options.betas, weight_decay=options.weight_decay, fused=True
        )
        return cls(network, copy.deepcopy(network).requires_grad_(False).eval(), optimizer)

    def save(self, run: Run, recipe: Recipe) -> None:
        """Write a checkpoint."""
        parts = {
            "ema": self.average.state_dict(),
            "model": self.network.state_dict(),
            "optimizer": dict(self._moments()),
        }
        checkpoints.save(run.checkpoints, self.step, parts, recipe.model_dump(mode="json"))

    def load(self, checkpoint: Path) -> None:
        """Go back to a checkpoint."""
        self.average.load_state_dict(checkpoints.load(checkpoint, "ema"))
        self.network.load_state_dict(checkpoints.load(checkpoint, "model"))
        moments = checkpoints.load(checkpoint, "optimizer")
        for name, parameter in self.network.named_parameters():
            kept = {key: moments[f"{name}.{key}"].to(parameter.device) for key in ("step", "exp_avg", "exp_avg_sq")}
            self.optimizer.state[parameter] = kept
        self.step = checkpoints.step_of(checkpoint)

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                yield f"{name}.{key}", value


def train(recipe: Recipe, folder: Path, device: torch.device, say: Callable[[str], None] = print) -> None:
    """Train a recipe in a folder, or go on with it where it stopped.

    Args:
        recipe: the experiment.
        folder: gets the run.
        device: where to train.
        say: takes lines for the reader.

    Raises:
        Problem: the recipe cannot be built, the folder cannot be used, or the loss is not finite.
        KeyboardInterrupt: the run was interrupted; a checkpoint has been written.
    """
    split = recipe.data.build()
    state = State.create(recipe, split, device)
    take_step = Step(recipe, split, device)
    run = Run.begin(folder, recipe)
    say(to_toml(recipe))
    checkpoint = checkpoints.latest(run.checkpoints)
    if checkpoint:
        state.load(checkpoint)
        say(f"going on after step {state.step} of {folder}")
    run.cut_metrics(state.step)
    start, steps = time.monotonic(), recipe.train.steps
    with progress("training", steps, state.step, unit="steps") as advance, interrupts() as interrupted:
        for step in range(state.step + 1, steps + 1):
            loss = take_step(state, step)
            state.step = step
            stop = interrupted()  # asked once a step: who is heard is also saved
            last = step == steps or stop
            if step == 1 or last or step % recipe.log.every == 0:
                record = {"step": step, "loss": loss.item(), "images": step * recipe.train.batch}
                if not math.isfinite(record["loss"]):
                    raise Problem(
                        f"the loss at step {step} is {record['loss']}: lower optimizer.lr; checkpoints are good"
                    )
                run.write_metrics(record | {"seconds": round(time.monotonic() - start, 3)})
                advance(0, f"loss {record['loss']:.4f}")
            if last or step % recipe.checkpoint.every == 0:
                state.save(run, recipe)
            if last or step % recipe.grid.every == 0:
                _save_grid(state, recipe, split, folder)
            advance(1)
            if stop:
                raise KeyboardInterrupt
    say(f"trained {state.step} steps: {run.latest()}")


class Step:
    """One step of training as a function of its number and the state."""

    def __init__(self, recipe: Recipe, split: Split, device: torch.device):
        self.recipe = recipe
        self.device = device
        self.objective = recipe.objective.build(path=recipe.path.build())
        self.interval = train_interval(recipe)
        self.times = recipe.train.times.build()
        self.coupling = recipe.train.coupling.build() if recipe.train.coupling else None
        if self.coupling and split.classes and not getattr(self.coupling, "classwise", True):
            raise Problem("train.coupling: where there are classes, give classwise = true, or noise would tell of them")
        self.order = randomness.Order(recipe.seed, len(split.training))
        self.images = split.training
        self.labels = split.training.labels.to(device) if split.classes else None
        self.null = len(split.classes)

    def __call__(self, state: State, step: int) -> Tensor:
        """Change the state by step number `step` (from 1), and return the mean loss of its batch, a scalar."""
        recipe, seed = self.recipe, self.recipe.seed
        index = torch.arange((step - 1) * recipe.train.batch, step * recipe.train.batch)
        images = self.order(index)
        flips = torch.zeros(len(index), dtype=torch.bool)
        latents = partial(randomness.noise, seed, randomness.Stream.LATENT, index)
        x = self.images.states(images, flips, latents).to(self.device)
        eps = randomness.noise(seed, randomness.Stream.NOISE, index, tuple(x.shape[1:])).to(self.device)
        t = randomness.times(seed, index, self.times, self.interval).to(self.device)
        model = all_channels(state.network, self.objective)
        labels = None if self.labels is None else self.labels[images.to(self.device)]
        if self.coupling:
            eps = self.coupling(x, eps, labels)
        if labels is not None:
            y = randomness.drop(seed, index, labels, self.null, recipe.train.label_dropout)
            model = partial(model, y=y)
        loss: Tensor = self.objective(model, x, eps, t).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        for group in state.optimizer.param_groups:
            group["lr"] = recipe.optimizer.lr * min(1, step / max(1, recipe.optimizer.warmup))
        state.optimizer.step()
        state.optimizer.zero_grad()
        decay = min(recipe.ema.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_([*state.average.parameters()], [*state.network.parameters()], 1 - decay)
        return loss.detach()


def _save_grid(state: State, recipe: Recipe, split: Split, folder: Path) -> None:
    """Draw a few samples of every class, always from the same noise."""
    count = GRID_ROWS * max(1, len(split.classes))
    labels = balanced_labels(torch.arange(count), split)
    drawn = draw(state.average, recipe, split, count, seed=recipe.seed, labels=labels, quiet=True)
    save_picture(
        label_grid(drawn.pixels, labels, split.classes), folder / "grids" / f"{checkpoints.name(state.step)}.png"
    )


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a word that can be asked for; a second one acts as ever."""
    heard = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        heard = True
        signal.signal(number, former[signal.Signals(number)])

    former = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: heard
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
