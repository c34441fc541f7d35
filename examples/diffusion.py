"""A custom diffusion coefficient w(t): a function. Run this file to plot its effect on sample trajectories."""

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sitkit.backbones import Mixture
from sitkit.interpolants import Linear
from sitkit.samplers import SDE, Brownian, Diffusion, EulerMaruyama, Sigma, check


def bump(t: Tensor) -> Tensor:
    """Return w(t), which is large around t = 0.45 only."""
    return 3 * torch.exp(-(((t - 0.45) / 0.12) ** 2))


def check_component() -> None:
    check(bump)


def plot(file: Path) -> None:
    """Plot w, and trajectories from noise to two Gaussians, for sigma and the bump, with the same Brownian motion."""
    world, path = Mixture.isotropic(torch.tensor([[-1.0], [1.0]]), 0.2), Linear()
    times = torch.linspace(0, 1, 129, dtype=torch.float64)
    noise = torch.linspace(-2, 2, 15, dtype=torch.float64)[:, None]
    figure = Figure(figsize=(9, 3), layout="constrained")
    curves, *panels = figure.subplots(1, 3)
    coefficients: dict[str, Diffusion] = {"sigma": Sigma(path), "bump": bump}
    for (name, w), panel in zip(coefficients.items(), panels, strict=True):
        curves.plot(times, w(times), label=name)
        solver = EulerMaruyama(SDE(world.velocity(path), path, w), Brownian(0, torch.arange(15)))
        panel.plot(times[:-1], torch.stack([*solver(noise, times[:-1])])[..., 0], color="0.3", linewidth=0.7)
        panel.set(title=name, xlabel="t", ylabel="x", ylim=(-2.6, 2.6))
    curves.set(title="w(t)", xlabel="t")
    curves.legend()
    figure.savefig(file, dpi=90)


if __name__ == "__main__":
    check_component()
    plot(Path(sys.argv[1] if len(sys.argv) > 1 else "diffusion.png"))
