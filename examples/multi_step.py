"""A custom multistep solver: a generator with its history in local variables. Run this file to plot its errors."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sitkit.backbones import Mixture
from sitkit.interpolants import Linear
from sitkit.samplers import Counted, Euler, Field, Heun, adaptive, at, measured_order, sample


@dataclass(frozen=True)
class AdamsBashforth:
    """x + h ((1 + r/2) v - r/2 v_before), with the ratio r of this step to the last. Order 2, NFE: one per step."""

    velocity: Field

    def __call__(self, x: Tensor, times: Tensor, /) -> Iterator[Tensor]:
        yield x
        before, h_before = torch.zeros_like(x), torch.inf  # so that the first step is an Euler step
        for t, s in pairwise(times):
            now, h = at(self.velocity, x, t), s - t
            x = x + h * (now + h / h_before / 2 * (now - before))
            before, h_before = now, h
            yield x


def check_component() -> None:
    order = measured_order(AdamsBashforth)
    if abs(order - 2) > 0.15:
        raise ValueError(f"AdamsBashforth is of order {order:.2f}, not 2")


def plot(file: Path) -> None:
    """Plot error against NFE for a mixture of Gaussians."""
    velocity = Counted(Mixture.isotropic(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.3).velocity(Linear()))
    noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = adaptive(velocity, noise, 0, 1, rtol=1e-9, atol=1e-9)
    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    panel = figure.subplots()
    for solver in (Euler, Heun, AdamsBashforth):
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
    plot(Path(sys.argv[1] if len(sys.argv) > 1 else "multi_step.png"))
