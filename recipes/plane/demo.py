"""The 2D demo: trains a small network in under a minute, and plots how noise flows to data."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from markupsafe import Markup

from sitkit.backbones import MLP
from sitkit.interpolants import Linear
from sitkit.objectives import Matching
from sitkit.samplers import Diffusion, Field

from ..metrics import energy_distance
from ..storage.files import write_atomic
from ..support.errors import UserError
from ..support.names import did_you_mean
from ..support.progress import progress
from . import plots
from .flow import DIFFUSIONS, flow_by_exponential, flow_by_ode, flow_by_sde
from .page import FlowDirection, SolvedFlow, flow_page
from .targets import TARGETS, Target

BATCH = 512
POINTS = 4000
PAGE_POINTS, PAGE_SHOWN = 1000, 600
"""How many points of a flow of the page are moved, and how many of them are stored."""
PAGE_STEPS = 80
"""How many steps a flow of the page has, of which every second is stored."""
FLOORS = 8
"""How many pairs of fresh sets have their distances computed."""


def plane(data: str, out: Path, *, seed: int, steps: int, say: Callable[[str], None]) -> None:
    """Train on a 2D target, and write plots of the flow and an interactive page to a folder.

    Args:
        data: the name of the target.
        out: the folder of the plots.
        seed: the seed of training and sampling.
        steps: the number of training steps, of 512 points each.
        say: prints a line.

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
    velocity = train_velocity(target, steps, generator)
    say(f"trained {steps} steps on {data} in {time.monotonic() - start:.0f} s")
    noise = torch.randn(POINTS, 2, generator=generator)
    flows = {"ODE": flow_by_ode(velocity, noise), "SDE": flow_by_sde(velocity, noise, seed)}
    fresh = [target(POINTS, generator) for _ in range(2)]
    floor = energy_distance(*fresh)
    for name, flow in flows.items():
        say(f"energy distance to fresh data, {name}: {energy_distance(flow.states[-1], fresh[0]):.5f}")
    say(f"energy distance between two fresh data sets: {floor:.5f}")
    page = _page(data, velocity, generator, steps=steps, seed=seed)
    writers: dict[str, Callable[[Path], None]] = {
        "transport.png": lambda file: plots.plot_trajectories(flows, fresh[0], file),
        "velocity.png": lambda file: plots.plot_velocity(velocity, file),
        "flow.gif": lambda file: plots.write_animation(flows, file),
        "flow.html": lambda file: write_atomic(file, page.encode()),
    }
    for name, write in writers.items():
        try:
            write(out / name)
        except OSError as error:
            raise UserError(f"{out / name} cannot be written: {error.strerror}") from error
        say(f"{out / name}")


def train_velocity(target: Target, steps: int, generator: torch.Generator) -> Field:
    """Train a small network on the linear path to a target, and return its velocity field."""
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


def _page(data: str, velocity: Field, generator: torch.Generator, *, steps: int, seed: int) -> str:
    """Return the interactive page of the flow from noise to a target."""
    target = TARGETS[data]
    noise = torch.randn(PAGE_POINTS, 2, generator=generator)
    fresh = [target(PAGE_POINTS, generator) for _ in range(FLOORS + 1)]
    floors = [energy_distance(one, fresh[0]) for one in fresh[1:]]

    def solve(name: str, formula: str, w: Diffusion | None) -> SolvedFlow:
        flow = flow_by_exponential(velocity, noise, w, seed, PAGE_STEPS)
        return SolvedFlow(name, formula, w, flow.every(2, PAGE_SHOWN), energy_distance(flow.states[-1], fresh[0]))

    sdes = tuple(solve(name, formula, w) for name, (w, formula) in DIFFUSIONS.items())
    one = FlowDirection("noise", data, fresh[0][:PAGE_SHOWN], (min(floors), max(floors)), solve("ODE", "", None), sdes)
    footer = (
        f"An MLP was trained by {steps} steps of {BATCH} points on the linear path x_t = t x + (1 - t) noise, seed "
        f"{seed}. Each flow was solved by {PAGE_STEPS} steps of Exponential of order 2. Energy distances are between "
        f"{PAGE_POINTS} points at the end and as many fresh ones."
    )
    learnt = Markup("A small network has learnt the velocity <i>v</i>, which determines the score <i>s</i>.")
    return flow_page(f"From noise to {data}", [one], source="noise", learnt=learnt, footer=footer)
