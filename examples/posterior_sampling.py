"""Digits from half of their pixels and from a quarter of them, by posterior sampling with an unconditional network.

Run this file with the folder of a trained run and the file of the picture.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sitkit.recipes import load_run
from sitkit.recipes.metrics import nearest
from sitkit.samplers import KL, Coarsening, Counted, Field, Inpainting, Keyed, MomentMatching, plan, sample

STD = 0.05
"""How far a sample may be from the observation, as the standard deviation of noise, for pixels in [-1, 1]."""


def main(run: str, picture: Path, digits: int = 200, nfe: int = 20) -> None:
    trained = load_run(run)
    path, velocity = trained.path, Counted(trained.velocity())
    images, labels = trained.heldout()
    states = images / 127.5 - 1
    left = Inpainting(torch.arange(images.shape[-1]) < images.shape[-1] // 2)
    coarse = Coarsening(2)

    def draw(x: Tensor, operator: Callable[[Tensor], Tensor] | None, iterations: int, stochastic: bool) -> Tensor:
        """Return samples, one for each of the states x (B, C, H, W), of which the observations are known."""
        field: Field = velocity
        if operator is not None:
            field = MomentMatching(velocity, path, operator, operator(x), STD, iterations=iterations)
        w, noise = KL(path) if stochastic else None, Keyed(0, torch.arange(len(x)))
        few = plan(field, path, w=w, evaluations=nfe, interval=trained.interval, noise=noise)
        return sample(few.solver, trained.noise(len(x), seed=0), few.times)

    def share(x: Tensor) -> float:
        """Return the share of images whose nearest image, among held-out digits not used here, has their class."""
        features, reference = (trained.decode(each).flatten(1).float() for each in (x, states[digits:]))
        return float((labels[digits:][nearest(features, reference)] == labels[:digits]).double().mean())

    print(f"{'samples':40}{'NFE':>6}{'passes':>8}{'seconds':>9}{'true class':>12}")
    for name, operator, iterations, stochastic in (
        ("not guided, ODE", None, 0, False),
        ("left half known, ODE, 1 iteration", left, 1, False),
        ("left half known, ODE, 3 iterations", left, 3, False),
        ("left half known, SDE, 1 iteration", left, 1, True),
        ("left half known, SDE, 3 iterations", left, 3, True),
        ("4 x 4 pixels known, SDE, 3 iterations", coarse, 3, True),
    ):
        velocity.calls, start = 0, time.perf_counter()
        found = share(draw(states[:digits], operator, iterations, stochastic))
        passes, seconds = velocity.calls + nfe * iterations, time.perf_counter() - start
        print(f"{name:40}{velocity.calls:6}{passes:8}{seconds:9.1f}{found:12.3f}")
    print(f"{'held-out digits':63}{share(states[:digits]):12.3f}")

    shown = states[[int((labels == label).nonzero()[0]) for label in range(len(trained.classes))]]
    unknown = torch.arange(images.shape[-1]) >= images.shape[-1] // 2
    rows = [("digit", shown)]
    for name, operator, y in (
        ("left half", left, shown.masked_fill(unknown, torch.nan)),
        ("4 x 4 pixels", coarse, coarse(shown)),
    ):
        samples = draw(shown.repeat(3, 1, 1, 1), operator, 3, True).chunk(3)
        rows += [(name, y), *zip(("", "samples", ""), samples, strict=True)]
    figure = Figure(figsize=(0.6 * len(shown) + 1.2, 0.6 * len(rows)), layout="constrained")
    for (name, x), panels in zip(rows, figure.subplots(len(rows), len(shown)), strict=True):
        panels[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for image, panel in zip(x, panels, strict=True):
            panel.imshow(image[0].numpy(), cmap="gray", vmin=-1, vmax=1)
            panel.set(xticks=[], yticks=[], facecolor="tab:blue")
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
