"""Plots of 2D trajectories and velocity fields."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import matplotlib
import numpy as np
import torch
from PIL import Image

from sitkit.samplers import Field

from ..storage.files import write_atomic
from .flow import Trajectories

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

FileWriter: TypeAlias = Callable[[Path], None]
"""Writes a file."""
LIMIT = 3.2
NOISE_COLOUR, DATA_COLOUR = "#8c96a8", "#d1495b"
LINES = 40
"""How many trajectories are drawn."""
FRAMES = 40


def plot_trajectories(
    rows: Sequence[tuple[Mapping[str, Trajectories], str, torch.Tensor]], file: Path, limit: float = LIMIT
) -> None:
    """Plot the trajectories of some points, in rows of flows by title, and fresh data, with a title, beside them."""
    columns = len(rows[0][0]) + 1
    size = (4 * columns, 4.3 * len(rows))
    figure, panels = plt.subplots(len(rows), columns, figsize=size, dpi=110, layout="constrained", squeeze=False)
    for line, (flows, title, fresh) in zip(panels, rows, strict=True):
        for panel, (name, flow) in zip(line, flows.items(), strict=False):
            paths = flow.states[:, :LINES].transpose(0, 1).numpy()  # (N, T, 2)
            segments = [*np.stack([paths[:, :-1], paths[:, 1:]], axis=2).reshape(-1, 2, 2)]
            shades = np.tile(flow.times[:-1].numpy(), len(paths))
            panel.add_collection(LineCollection(segments, array=shades, cmap="viridis", linewidths=0.8, alpha=0.8))
            _scatter(panel, flow.states[0], NOISE_COLOUR)
            _scatter(panel, flow.states[-1], DATA_COLOUR)
            _frame(panel, name, limit)
        _scatter(line[-1], fresh, DATA_COLOUR)
        _frame(line[-1], title, limit)
    _save(figure, file)


@torch.no_grad()
def plot_velocity(field: Field, file: Path, times: Sequence[float] = (0.0, 0.33, 0.67, 0.95)) -> None:
    """Plot the velocity field at some times."""
    figure, panels = plt.subplots(1, len(times), figsize=(4 * len(times), 4.3), dpi=90, layout="constrained")
    axis = torch.linspace(-LIMIT, LIMIT, 25)
    x = torch.cartesian_prod(axis, axis)
    for panel, time in zip(panels, times, strict=True):
        v = field(x, torch.full((len(x),), time))
        panel.quiver(
            *x.T.numpy(), *v.T.numpy(), v.norm(dim=1).numpy(), cmap="viridis", angles="xy", pivot="mid", width=0.004
        )
        _frame(panel, f"velocity at t = {time:g}")
    _save(figure, file)


def write_animation(flows: Mapping[str, Trajectories], file: Path) -> None:
    """Write a GIF of the moving points, one panel for each solver, which pauses at its end."""
    frames = []
    for fraction in np.linspace(0, 1, FRAMES):
        figure, panels = plt.subplots(1, len(flows), figsize=(3 * len(flows), 3.2), dpi=72, layout="constrained")
        for panel, (name, flow) in zip(np.atleast_1d(panels), flows.items(), strict=True):
            time = flow.times[0] + fraction * (flow.times[-1] - flow.times[0])
            at = int((flow.times - time).abs().argmin())
            _scatter(panel, flow.states[at][:1500], DATA_COLOUR)
            _frame(panel, f"{name}   t = {flow.times[at]:.2f}")
        frames.append(_image(figure).convert("P", palette=Image.Palette.ADAPTIVE, colors=32))
    data = io.BytesIO()
    durations = [70] * (FRAMES - 1) + [1500]
    frames[0].save(data, format="gif", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    write_atomic(file, data.getvalue())


def _scatter(panel: Axes, points: torch.Tensor, colour: str) -> None:
    panel.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=2, alpha=0.5, color=colour, linewidths=0)


def _frame(panel: Axes, title: str, limit: float = LIMIT) -> None:
    panel.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")
    panel.set_title(title, fontsize=11)


def _image(figure: Figure) -> Image.Image:
    data = io.BytesIO()
    figure.savefig(data, format="png")
    plt.close(figure)
    return Image.open(data).convert("RGB")


def _save(figure: Figure, file: Path) -> None:
    data = io.BytesIO()
    _image(figure).convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(data, format="png", optimize=True)
    write_atomic(file, data.getvalue())
