"""The interactive page of a 2D flow: one HTML file with a time slider, the ODE beside the SDE, and a choice of w.

The page has no external references. Trajectories are computed beforehand and stored as 16-bit integers in base64.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from markupsafe import Markup
from torch import Tensor

from sitkit.samplers import Diffusion

from ..metrics import energy_distance
from ..support.html_pages import render
from .flow import Trajectories
from .targets import Target

PAGE_POINTS, PAGE_SHOWN = 1000, 600
"""How many points of a flow are moved, and how many of them are stored."""
PAGE_STEPS = 80
"""How many steps a flow has, of which every second is stored."""
FLOORS = 8
"""How many pairs of fresh sets have their energy distance computed."""
LEVELS = 65535
"""The largest integer that a coordinate is stored as."""


@dataclass(frozen=True, eq=False)
class SolvedFlow:
    """The trajectories of one ODE or SDE, with the energy distance of their last states to fresh data.

    Args:
        name: the name of w.
        formula: the formula of w, in Unicode.
        w: the diffusion coefficient, which may be infinite at an end; None for the ODE.
        trajectories: the trajectories, in an even number of steps. The page shows the first, at every second time.
        distance: the energy distance.
    """

    name: str
    formula: str
    w: Diffusion | None
    trajectories: Trajectories
    distance: float


@dataclass(frozen=True, eq=False)
class FlowDirection:
    """The flows from one distribution to another, from equal starting points.

    Args:
        start: the name of the distribution at the start.
        end: the name of that at the end.
        fresh: fresh points of the distribution at the end, (N, 2).
        floor: the least and the largest energy distance between two fresh sets.
        ode: the flow by the ODE.
        sdes: the flows by the SDEs.
    """

    start: str
    end: str
    fresh: Tensor
    floor: tuple[float, float]
    ode: SolvedFlow
    sdes: tuple[SolvedFlow, ...]

    @property
    def flows(self) -> tuple[SolvedFlow, ...]:
        """All flows."""
        return (self.ode, *self.sdes)


def energy_floor(target: Target, generator: torch.Generator) -> tuple[Tensor, tuple[float, float]]:
    """Return fresh points, and the least and largest energy distance of other fresh sets to them."""
    fresh = target(PAGE_POINTS, generator)
    floors = [energy_distance(target(PAGE_POINTS, generator), fresh) for _ in range(FLOORS)]
    return fresh, (min(floors), max(floors))


def flow_page(title: str, directions: Sequence[FlowDirection], *, learnt: Markup, footer: str) -> str:
    """Return the page as HTML.

    Args:
        title: the title.
        directions: from the distribution at t = 0 to that at t = 1, and maybe back. The names of SDEs and the numbers
            of points are equal.
        learnt: what the network has learnt, as HTML of one sentence.
        footer: how the flows were computed, as text.
    """
    states = [flow.trajectories.states for one in directions for flow in one.flows]
    limit = max(float(one.abs().max()) for one in [*states, *(one.fresh for one in directions)])
    content = [_direction(one, limit, backward=bool(n)) for n, one in enumerate(directions)]
    return render(
        "plane/templates/flow.html",
        title=title,
        directions=content,
        names=[one.name for one in directions[0].sdes],
        points=min(states[0].shape[1], PAGE_SHOWN),
        learnt=learnt,
        footer=footer,
        content={"limit": limit, "levels": LEVELS, "directions": content},
    )


def _direction(direction: FlowDirection, limit: float, *, backward: bool) -> dict[str, Any]:
    flows = [_flow(one, limit, backward) for one in direction.flows]
    return {
        "start": direction.start,
        "end": direction.end,
        "backward": backward,
        "floor": [f"{one:.4f}" for one in direction.floor],
        "fresh": quantise(direction.fresh[:PAGE_SHOWN], limit),
        "ode": flows[0],
        "sdes": flows[1:],
    }


def _flow(flow: SolvedFlow, limit: float, backward: bool) -> dict[str, Any]:
    """Return a flow with every second of its states, in the order of increasing times."""
    times, states = flow.trajectories.times[::2], flow.trajectories.states[::2, :PAGE_SHOWN]
    if backward:
        times, states = times.flip(0), states.flip(0)
    return {
        "name": flow.name,
        "formula": flow.formula,
        "distance": f"{flow.distance:.4f}",
        "w": [] if flow.w is None else _curve(flow.w),
        "times": [round(time, 6) for time in times.tolist()],
        "states": quantise(states, limit),
    }


def _curve(w: Diffusion) -> list[tuple[float, float]]:
    """Return the points (t, w(t)) of a plot, without those where w is infinite."""
    times = torch.linspace(0, 1, 81, dtype=torch.float64)
    values = w(times)
    return [
        (round(t, 6), round(value, 4))
        for t, value in zip(times.tolist(), values.tolist(), strict=True)
        if math.isfinite(value)
    ]


def quantise(values: Tensor, limit: float) -> str:
    """Return values as base64 of little-endian 16-bit integers: k stands for (2 k / 65535 - 1) limit."""
    levels = ((values.double() / limit + 1) / 2 * LEVELS).round().to(torch.int32)
    return base64.b64encode(levels.numpy().astype("<u2").tobytes()).decode()
