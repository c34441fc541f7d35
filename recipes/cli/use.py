"""Commands that use a run: draw, measure."""

from pathlib import Path
from typing import Annotated

import typer

from ..problem import Problem
from .app import Average, Device, RunFolder, Settings, command, device_of, resample, writable


@command
def sample(
    folder: RunFolder,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="A .png grid, or an .npz with arr_0 (N, H, W, 3) uint8, labels.")
    ],
    num: Annotated[int, typer.Option(min=1, help="How many samples.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampling.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Samples at once; changes no sample.")] = 512,
    label: Annotated[list[str] | None, typer.Option(help="A class to draw, by name; may be repeated.")] = None,
    settings: Settings = None,
    average: Average = "ema",
    device: Device = "auto",
) -> None:
    """Draw samples from a run's newest checkpoint, every class in turn unless labels are given.

    Example: sitkit sample runs/digits --num 100 --out sde.png --set sampler.kind=sde --set guidance.scale=2
    """
    import torch

    from ..run import Run
    from ..sample.generate import choose_labels, draw, load_network
    from ..sample.pictures import label_grid, save_arrays, save_picture

    if out.suffix not in (".png", ".npz"):
        raise Problem(f"--out must end in .png or .npz, got {out}")
    writable(out)
    run = Run.find(folder)
    recipe = resample(run.recipe(), settings)
    split = recipe.data.build()
    labels = choose_labels(torch.arange(num), split, label or ())
    network = load_network(recipe, split, run.latest(), device_of(device), average)
    drawn = draw(network, recipe, split, num, seed=seed, labels=labels, batch=batch)
    if out.suffix == ".png":
        save_picture(label_grid(drawn.pixels, drawn.labels, split.classes), out)
    else:
        save_arrays(drawn.pixels, drawn.labels, out)
    typer.echo(f"{out}: {num} samples, {drawn.calls} network calls a batch, {drawn.rows} network rows a sample")


@command
def evaluate(
    folder: RunFolder,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first draw.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Samples at once; changes no sample.")] = 512,
    average: Average = "ema",
    device: Device = "auto",
) -> None:
    """Measure a run's newest checkpoint against held-out data; writes report.json and report.html into DIR.

    Example: sitkit evaluate runs/digits --set evaluation.draws=3
    """
    from ..evaluate.evaluation import evaluate as run_evaluation
    from ..run import Run

    run = Run.find(folder)
    recipe = resample(run.recipe(), settings, "evaluation")
    writable(folder / "report.json")
    typer.echo(run_evaluation(run, recipe, device_of(device), seed=seed, batch=batch, average=average))


@command
def likelihood(
    folder: RunFolder,
    num: Annotated[int, typer.Option(min=1, help="How many held-out images, from the first.")] = 512,
    probes: Annotated[
        int | None,
        typer.Option(
            min=0, help="Random probes of the divergence; 0 is exact, the default for images of up to 256 numbers."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of dequantisation and probes.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 512,
    average: Average = "ema",
    device: Device = "auto",
) -> None:
    """Measure held-out images in bits per dimension under a run's newest checkpoint; writes likelihood.json into DIR.

    Example: sitkit likelihood runs/digits --num 128
    """
    from ..evaluate.likelihood import likelihood as run_likelihood
    from ..run import Run

    run = Run.find(folder)
    writable(folder / "likelihood.json")
    recipe = run.recipe()
    typer.echo(
        run_likelihood(run, recipe, device_of(device), num=num, probes=probes, seed=seed, batch=batch, average=average)
    )
