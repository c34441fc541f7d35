"""Edits of images with a trained run: SDEdit, inversion by the ODE, and interpolation through noise."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sitkit.recipes import TrainedRun, load_run
from sitkit.samplers import RK4, Counted, Euler, Heun, sample

DRAWINGS = {
    7: "........ .######. ....##.. ...##... ..#####. ...#.... ..##.... ..##....",
    3: ".#####.. .....##. ....##.. ..####.. .....##. .....##. .#####.. ........",
    2: "..####.. .##..##. .....##. ....##.. ...##... ..##.... .######. ........",
    6: "...##... ..####.. .######. .##..##. .##..##. .######. .######. ........",  # a house, to become a six
}
STRENGTHS = (0.8, 0.6, 0.4, 0.2, 0.0)


def sdedit(run: TrainedRun, x: Tensor, eps: Tensor, labels: Tensor, t: float, steps: int) -> Tensor:
    """Add the noise of time t to images x, and solve the ODE from there (arXiv 2108.01073). A small t keeps little."""
    x_t = run.path.mix(x, eps, torch.tensor(t))
    return sample(Heun(run.velocity(labels)), x_t, torch.linspace(t, run.interval[1], steps + 1))


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Return the noise between a and b (B, C, H, W) on a great circle. A linear interpolation would have less norm."""
    angle = torch.cosine_similarity(a.flatten(1), b.flatten(1)).acos().reshape(-1, 1, 1, 1)
    return (((1 - weight) * angle).sin() * a + (weight * angle).sin() * b) / angle.sin()


def show(panel: Axes, columns: Sequence[Tensor], title: str, names: Sequence[str], rows: Sequence[str]) -> None:
    """Draw columns of images (B, 1, H, W) as one grid."""
    images = torch.nn.functional.pad(torch.stack([*columns])[:, :, 0], (1, 1, 1, 1), value=1)
    height, width = images.shape[2:]
    panel.imshow(images.permute(1, 2, 0, 3).flatten(2).flatten(0, 1).numpy(), cmap="gray", vmin=-1, vmax=1)
    panel.set_title(title, fontsize=12)
    panel.set_xticks([(n + 0.5) * width - 0.5 for n in range(len(names))], names)
    panel.set_yticks([(n + 0.5) * height - 0.5 for n in range(len(rows))], rows)
    panel.tick_params(length=0, labelsize=9)
    panel.spines[:].set_visible(False)


def main(folder: str, picture: Path, steps: int = 40) -> None:
    run, figure = load_run(folder), Figure(figsize=(12, 2.7), layout="constrained")
    times = torch.linspace(*run.interval, steps + 1)
    images, labels = run.heldout()
    x = torch.cat([images[labels == label][1:2] for label in range(10)]) / 127.5 - 1
    left, middle, right = figure.subplots(1, 3)

    filled = [[[pixel == "#" for pixel in row] for row in drawing.split()] for drawing in DRAWINGS.values()]
    drawings, wanted = 1.6 * torch.tensor(filled)[:, None] - 0.8, torch.tensor([*DRAWINGS])
    edits = [sdedit(run, drawings, run.noise(len(wanted)), wanted, t, steps) for t in STRENGTHS]
    names = ["drawing", *(f"t = {t}" for t in STRENGTHS)]
    show(left, [drawings, *edits], "SDEdit: a drawing, with the noise of time t", names, [f"as {n}" for n in DRAWINGS])

    for solver in (Euler, RK4, Heun):
        velocity = Counted(run.velocity())
        noise = sample(solver(velocity), x, times.flip(0))
        back = sample(solver(velocity), noise, times)
        error = back - x
        root = error.square().mean().sqrt()
        print(f"inversion and back by {solver.__name__}, {velocity.calls} NFE: root mean square error {root:.2g}")
    print(f"standard deviation of the noise of held-out digits: {noise.std():.3f}")
    rows = ["digit", "its noise", "back", "error x1000"]
    show(middle, [*torch.stack([x, noise, back, 1000 * error], 1)[:6]], "Inversion of held-out digits", [], rows)

    weights, (a, b) = [n / 5 for n in range(6)], torch.tensor([[0, 2], [6, 7]])
    through_noise = [sample(Heun(velocity), slerp(noise[a], noise[b], weight), times) for weight in weights]
    of_pixels = [torch.lerp(x[a], x[b], weight) for weight in weights]
    columns = [torch.stack(pair, 1).flatten(0, 1) for pair in zip(through_noise, of_pixels, strict=True)]
    show(right, columns, "Interpolation of held-out digits", [str(w) for w in weights], ["noise", "pixels"] * 2)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
