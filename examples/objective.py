"""A custom objective: a loss, and the conversion of outputs to velocities. Run this file to train and plot samples."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sitkit.backbones import MLP
from sitkit.interpolants import GVP, Interpolant
from sitkit.objectives import Field, check
from sitkit.recipes.plane.targets import moons
from sitkit.samplers import Heun, sample


@dataclass(frozen=True)
class Difference:
    """The network predicts x - eps, whose scale does not depend on time, along any path."""

    path: Interpolant

    def __call__(self, model: Field, x: Tensor, eps: Tensor, t: Tensor, /) -> Tensor:
        return (model(self.path.mix(x, eps, t), t) - (x - eps)).square().flatten(1).mean(1)

    def field(self, model: Field, /) -> Field:
        return lambda x_t, t: self.to_velocity(model(x_t, t), x_t, t)

    def to_velocity(self, difference: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (f(t).reshape(-1, *[1] * (x_t.ndim - 1)) for f in (self.path.alpha, self.path.sigma))
        x = (x_t + sigma * difference) / (alpha + sigma)
        return self.path.velocity(x, x - difference, t)


def check_component() -> None:
    check(Difference(GVP()))


def plot(file: Path, steps: int = 2000) -> None:
    """Train on two moons, and plot samples beside data."""
    torch.manual_seed(0)
    objective, model = Difference(GVP()), MLP(features=2, hidden_size=128)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(steps):
        x = moons(512)
        loss = objective(model, x, torch.randn_like(x), torch.rand(len(x))).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    samples = sample(Heun(objective.field(model)), torch.randn(2000, 2), torch.linspace(0, 1, 51))
    figure = Figure(figsize=(6, 3), layout="constrained")
    for panel, points, title in zip(figure.subplots(1, 2), (moons(2000), samples), ("data", "samples"), strict=True):
        panel.scatter(*points.T, s=1, color="tab:red")
        panel.set(title=title, aspect="equal", xlim=(-3, 3), ylim=(-3, 3))
    figure.savefig(file, dpi=90)


if __name__ == "__main__":
    check_component()
    plot(Path(sys.argv[1] if len(sys.argv) > 1 else "objective.png"))
