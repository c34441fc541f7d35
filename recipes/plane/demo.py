"""Transport in the plane: train a small network in under a minute, and see noise flow to data."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from sitkit.backbones import MLP
from sitkit.interpolants import Linear
from sitkit.objectives import Matching
from sitkit.samplers import Field

from ..metrics import energy_distance
from ..support.errors import UserError
from ..support.names import did_you_mean
from ..support.progress import progress
from . import plots
from .flow import flow_by_ode, flow_by_sde
from .targets import TARGETS, Target

BATCH = 512
POINTS = 4000


def plane(data: str, out: Path, *, seed: int, steps: int, say: Callable[[str], None]) -> None:
    """Train on a target, and write pictures of the flow into a folder.

    Args:
        data: the target's name.
        out: the folder.
        seed: of all that is random.
        steps: of training, of 512 points each.
        say: takes lines for the reader.

    Raises:
        UserError: there is no such target, or the folder cannot be written.
    """
    if data not in TARGETS:
        raise UserError(f"no target '{data}'{did_you_mean(data, [*TARGETS])}; known: {', '.join(TARGETS)}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from error
    target, generator = TARGETS[data], torch.Generator().manual_seed(seed)
    start = time.monotonic()
    velocity = learn(target, steps, generator)
    say(f"trained {steps} steps on {data} in {time.monotonic() - start:.0f} s")
    noise = torch.randn(POINTS, 2, generator=generator)
    flows = {"ODE": flow_by_ode(velocity, noise), "SDE": flow_by_sde(velocity, noise, seed)}
    fresh = [target(POINTS, generator) for _ in range(2)]
    floor = energy_distance(*fresh)
    for name, flow in flows.items():
        say(f"energy distance to fresh data, {name}: {energy_distance(flow.states[-1], fresh[0]):.5f}")
    say(f"energy distance between two fresh data sets: {floor:.5f}")
    pictures: dict[str, Callable[[Path], None]] = {
        "transport.png": lambda file: plots.trajectories(flows, fresh[0], file),
        "velocity.png": lambda file: plots.velocity(velocity, file),
        "flow.gif": lambda file: plots.animation(flows, file),
    }
    for name, draw in pictures.items():
        try:
            draw(out / name)
        except OSError as error:
            raise UserError(f"{out / name} cannot be written: {error.strerror}") from error
        say(f"{out / name}")


def learn(target: Target, steps: int, generator: torch.Generator) -> Field:
    """Return the velocity of a small network that has been trained to match the straight path to a target."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        model = MLP(features=2)
    objective = Matching(Linear())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=max(steps, 2))
    with progress("training", steps, unit="steps") as advance:
        for _ in range(steps):
            x = target(BATCH, generator)
            eps = torch.randn(x.shape, generator=generator)
            t = torch.rand(BATCH, generator=generator)
            loss = objective(model, x, eps, t).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            advance(1)
    return objective.field(model)
