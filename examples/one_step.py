"""A custom one-step solver: a class with one method. Run this file to plot its errors beside those of others."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sitkit.backbones import Mixture
from sitkit.interpolants import Linear
from sitkit.samplers import Counted, Euler, Field, Heun, OneStep, adaptive, at, column, measured_order, sample


@dataclass(frozen=True)
class Ralston(OneStep):
    """x + h/4 (k1 + 3 k2), with slope k2 at two thirds of the step (Ralston 1962). Order 2, NFE: two per step."""

    order: ClassVar[int] = 2
    velocity: Field

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        h = column(s - t, x)
        k1 = at(self.velocity, x, t)
        k2 = at(self.velocity, (x + 2 / 3 * h * k1).to(x.dtype), t + 2 / 3 * (s - t))
        return x + h / 4 * (k1 + 3 * k2)


def check_component() -> None:
    order = measured_order(Ralston)
    if abs(order - Ralston.order) > 0.15:
        raise ValueError(f"Ralston is of order {order:.2f}, not {Ralston.order}")


def plot(file: Path) -> None:
    """Plot error against NFE for a mixture of Gaussians."""
    velocity = Counted(Mixture.isotropic(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.3).velocity(Linear()))
    noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = adaptive(velocity, noise, 0, 1, rtol=1e-9, atol=1e-9)
    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    panel = figure.subplots()
    for solver in (Euler, Heun, Ralston):
        nfe, errors = [], []
        for steps in (4, 8, 16, 32, 64):
            velocity.calls = 0
            reached = sample(solver(velocity), noise, torch.linspace(0, 1, steps + 1, dtype=torch.float64))
            errors.append(float((reached - exact).square().mean().sqrt()))
            nfe.append(velocity.calls)
        panel.loglog(nfe, errors, ".-", label=solver.__name__)
    panel.set(xlabel="NFE", ylabel="root mean square error")
    panel.legend()
    figure.savefig(file, dpi=90)


if __name__ == "__main__":
    check_component()
    plot(Path(sys.argv[1] if len(sys.argv) > 1 else "one_step.png"))
