"""The 2D demo: trains a small network in about a minute, and plots how noise flows to data."""

import time
from collections.abc import Callable, Mapping
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
from . import plots
from .bridge_demo import bridge_files
from .bridge_flow import BRIDGES
from .flow import DIFFUSIONS, flow_by_exponential, flow_by_ode, flow_by_sde
from .page import PAGE_POINTS, PAGE_STEPS, FlowDirection, SolvedFlow, energy_floor, flow_page
from .plots import FileWriter
from .targets import TARGETS, Target
from .training import BATCH, train

POINTS = 4000
NOISE = "noise"


def plane(
    data: str,
    out: Path,
    *,
    source: str = NOISE,
    bridge: str | None = None,
    seed: int,
    steps: int,
    say: Callable[[str], None],
) -> None:
    """Train on a 2D target, and write plots of the flow and an interactive page to a folder.

    Args:
        data: the name of the target.
        out: the folder of the plots.
        source: "noise", or the name of the target at t = 0: the path is then two-sided.
        bridge: the name of the two-sided path. Default: "sine".
        seed: the seed of training and sampling.
        steps: the number of training steps, of 512 points each.
        say: prints a line.

    Raises:
        UserError: there is no such target or bridge, or the folder cannot be written.
    """
    _check_name("target", data, [*TARGETS])
    _check_name("source", source, [NOISE, *TARGETS])
    if bridge is not None:
        _check_name("bridge", bridge, [*BRIDGES])
        if source == NOISE:
            raise UserError(f"--bridge {bridge} needs --source, one of {', '.join(TARGETS)}: noise has no bridge")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from error
    if source == NOISE:
        files = noise_files(data, seed=seed, steps=steps, say=say)
    else:
        files = bridge_files(source, data, bridge or "sine", seed=seed, steps=steps, say=say)
    for name, write in files.items():
        try:
            write(out / name)
        except OSError as error:
            raise UserError(f"{out / name} cannot be written: {error.strerror}") from error
        say(f"{out / name}")


def _check_name(kind: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise UserError(f"no {kind} '{name}'{did_you_mean(name, known)}; known: {', '.join(known)}")


def noise_files(data: str, *, seed: int, steps: int, say: Callable[[str], None]) -> Mapping[str, FileWriter]:
    """Train on the linear path from noise to a target, and return functions that write the files, by name."""
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
    titled = {f"{name}: noise to data": flow for name, flow in flows.items()}
    return {
        "transport.png": lambda file: plots.plot_trajectories([(titled, "fresh data", fresh[0])], file),
        "velocity.png": lambda file: plots.plot_velocity(velocity, file),
        "flow.gif": lambda file: plots.write_animation(flows, file),
        "flow.html": lambda file: write_atomic(file, page.encode()),
    }


def train_velocity(target: Target, steps: int, generator: torch.Generator) -> Field:
    """Train a small network on the linear path to a target, and return its velocity field."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        model = MLP(features=2)
    objective = Matching(Linear())

    def loss() -> torch.Tensor:
        x = target(BATCH, generator)
        eps = torch.randn(x.shape, generator=generator)
        t = torch.rand(BATCH, generator=generator)
        return objective(model, x, eps, t).mean()

    train(model, loss, steps)
    return objective.field(model)


def _page(data: str, velocity: Field, generator: torch.Generator, *, steps: int, seed: int) -> str:
    """Return the interactive page of the flow from noise to a target."""
    target = TARGETS[data]
    noise = torch.randn(PAGE_POINTS, 2, generator=generator)
    fresh, floor = energy_floor(target, generator)

    def solve(name: str, formula: str, w: Diffusion | None) -> SolvedFlow:
        flow = flow_by_exponential(velocity, noise, w, seed, PAGE_STEPS)
        return SolvedFlow(name, formula, w, flow, energy_distance(flow.states[-1], fresh))

    sdes = tuple(solve(name, formula, w) for name, (w, formula) in DIFFUSIONS.items())
    one = FlowDirection("noise", data, fresh, floor, solve("ODE", "", None), sdes)
    footer = (
        f"An MLP was trained by {steps} steps of {BATCH} points on the linear path x_t = t x + (1 - t) noise, seed "
        f"{seed}. Each flow was solved by {PAGE_STEPS} steps of Exponential of order 2. Energy distances are between "
        f"{PAGE_POINTS} points at the end and as many fresh ones."
    )
    learnt = Markup("A small network has learnt the velocity <i>v</i>, which determines the score <i>s</i>.")
    return flow_page(f"From noise to {data}", [one], learnt=learnt, footer=footer)
