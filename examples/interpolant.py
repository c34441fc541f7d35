"""A custom path: a class with two methods. Run this file to plot it beside the linear path."""

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sitkit.backbones import Mixture
from sitkit.interpolants import Interpolant, Linear, check
from sitkit.samplers import Heun


class SquaredCosine(Interpolant):
    r"""$\alpha(t) = \sin^2(\pi t/2)$, $\sigma(t) = \cos^2(\pi t/2)$. Derivatives are 0 at both ends."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(torch.pi / 2 * t) ** 2

    def sigma(self, t: Tensor) -> Tensor:
        return torch.cos(torch.pi / 2 * t) ** 2


def check_component() -> None:
    check(SquaredCosine())


def plot(file: Path) -> None:
    """Plot alpha and sigma, and the flow from noise to two Gaussians, along both paths."""
    world = Mixture(torch.tensor([1.0, 2.0]), torch.tensor([[-1.0], [1.5]]), torch.tensor([[[0.05]], [[0.15]]]))
    times = torch.linspace(
        0.01, 1, 100, dtype=torch.float64
    )  # not from 0, where the velocity does not depend on the data
    noise = torch.linspace(-2, 2, 25, dtype=torch.float64)[:, None]
    figure = Figure(figsize=(9, 3), layout="constrained")
    curves, *panels = figure.subplots(1, 3)
    for path, style, panel in ((Linear(), "--", panels[0]), (SquaredCosine(), "-", panels[1])):
        curves.plot(times, path.alpha(times), style, color="tab:red")
        curves.plot(times, path.sigma(times), style, color="tab:blue")
        states = [*Heun(world.velocity(path))(noise, times)]
        panel.plot(times, torch.stack(states)[..., 0], color="0.3", linewidth=0.7)
        panel.set(title=type(path).__name__, xlabel="t", ylabel="x")
    curves.set(title="alpha (red), sigma (blue)", xlabel="t")
    figure.savefig(file, dpi=90)


if __name__ == "__main__":
    check_component()
    plot(Path(sys.argv[1] if len(sys.argv) > 1 else "interpolant.png"))
