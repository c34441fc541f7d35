"""The 2D demo of two distributions: a two-sided path from one to the other, solved in both directions."""

import time
from collections.abc import Callable, Mapping

import torch
from markupsafe import Markup

from sitkit.backbones import MLP
from sitkit.objectives import Bridging
from sitkit.samplers import Diffusion

from ..metrics import energy_distance
from ..storage.files import write_atomic
from . import plots
from .bridge_flow import BRIDGE_DIFFUSIONS, BRIDGES, BridgeField, flow_between
from .flow import Trajectories
from .page import PAGE_POINTS, PAGE_STEPS, FlowDirection, SolvedFlow, energy_floor, flow_page
from .plots import FileWriter
from .targets import TARGETS
from .training import BATCH, train

SDE_NAME = "SineSquared"
"""The SDE of the plots."""


def bridge_files(
    source: str, data: str, bridge: str, *, seed: int, steps: int, say: Callable[[str], None]
) -> Mapping[str, FileWriter]:
    """Train on a two-sided path between two targets, and return functions that write the files, by name."""
    generator, start = torch.Generator().manual_seed(seed), time.monotonic()
    field = train_bridge(source, data, bridge, steps, generator)
    say(f"trained {steps} steps from {source} to {data} in {time.monotonic() - start:.0f} s")
    directions = [_solve(field, one, generator, seed) for one in ((source, data, False), (data, source, True))]
    for one in directions:
        for name, flow in (("ODE", one.ode), ("SDE", _plotted(one))):
            say(f"{one.start} to {one.end}: energy distance to fresh {one.end}, {name}: {flow.distance:.5f}")
        say(f"energy distance between two fresh sets of {one.end}: {one.floor[0]:.5f} to {one.floor[1]:.5f}")
    page = _page(source, data, bridge, directions, steps=steps, seed=seed)
    rows = [(_titled(one), f"fresh {one.end}", one.fresh) for one in directions]
    moving = {name: flow for one in directions for name, flow in _titled(one).items()}
    times = (0.05, 0.35, 0.65, 0.95)
    return {
        "transport.png": lambda file: plots.plot_trajectories(rows, file, limit=2.6),
        "velocity.png": lambda file: plots.plot_velocity(field.velocity, file, times),
        "flow.gif": lambda file: plots.write_animation(moving, file),
        "flow.html": lambda file: write_atomic(file, page.encode()),
    }


def train_bridge(source: str, data: str, bridge: str, steps: int, generator: torch.Generator) -> BridgeField:
    """Train a small network on a two-sided path between independent points, and return velocity and score."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        model = MLP(features=2, out_features=4)
    path = BRIDGES[bridge][0]
    objective = Bridging(path)

    def loss() -> torch.Tensor:
        x, x_src = TARGETS[data](BATCH, generator), TARGETS[source](BATCH, generator)
        z = torch.randn(x.shape, generator=generator)
        t = torch.rand(BATCH, generator=generator)
        return objective(model, x, x_src, z, t).mean()

    train(model, loss, steps)
    return BridgeField(objective.field(model), objective.scored(model), path)


def _solve(
    field: BridgeField, direction: tuple[str, str, bool], generator: torch.Generator, seed: int
) -> FlowDirection:
    """Solve the ODE and all SDEs in one direction: the names of its start and end, and whether it is backward."""
    start, end, backward = direction
    points = TARGETS[start](PAGE_POINTS, generator)
    fresh, floor = energy_floor(TARGETS[end], generator)

    def solve(name: str, formula: str, w: Diffusion | None) -> SolvedFlow:
        flow = flow_between(field, points, w, seed, PAGE_STEPS, backward=backward)
        return SolvedFlow(name, formula, w, flow, energy_distance(flow.states[-1], fresh))

    sdes = tuple(solve(name, formula, w) for name, (w, formula) in BRIDGE_DIFFUSIONS.items())
    return FlowDirection(start, end, fresh, floor, solve("ODE", "", None), sdes)


def _plotted(direction: FlowDirection) -> SolvedFlow:
    """Return the SDE of the plots."""
    return next(one for one in direction.sdes if one.name == SDE_NAME)


def _titled(direction: FlowDirection) -> dict[str, Trajectories]:
    """Return the flows of the plots by title."""
    way = f"{direction.start} to {direction.end}"
    return {f"ODE: {way}": direction.ode.trajectories, f"SDE: {way}": _plotted(direction).trajectories}


def _page(source: str, data: str, bridge: str, directions: list[FlowDirection], *, steps: int, seed: int) -> str:
    """Return the interactive page."""
    learnt = Markup(
        "A small network has learnt the drift and the noise of a two-sided path, which determine its velocity "
        "<i>v</i> and its score <i>s</i>."
    )
    footer = (
        f"An MLP was trained by {steps} steps of {BATCH} independent pairs of points on the path x_t = t x + (1 − t) "
        f"x_src + γ(t) z with {BRIDGES[bridge][1]}, seed {seed}. Each flow was solved by {PAGE_STEPS} steps of Heun or "
        f"StochasticHeun, the last step of an SDE by Mean. Energy distances are between {PAGE_POINTS} points at the "
        "end and as many fresh ones."
    )
    return flow_page(f"From {source} to {data} and back", directions, learnt=learnt, footer=footer)
