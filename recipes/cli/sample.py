"""Commands that draw samples, and hand them on."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .common import (
    AFTER_TRAINING,
    MOST_IMAGES,
    MOST_ROWS,
    MOST_SEED,
    PLACES,
    Average,
    Device,
    RunFolder,
    SamplerName,
    Settings,
    Trusting,
    command,
    device_of,
    resample,
    trust_of,
    writable,
)


@command
def sample(
    folder: RunFolder,
    out: Annotated[
        Path,
        typer.Option(
            metavar="PLACE", help="A folder; or a .png grid, or an .npz with arr_0 (N, H, W, 3) uint8 and labels."
        ),
    ],
    num: Annotated[int, typer.Option("--samples", "--num", min=1, max=MOST_IMAGES, help="How many samples.")] = 100,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of the sampling.")] = 0,
    batch: Annotated[
        int, typer.Option(min=1, max=MOST_ROWS, help="Samples at once, 256 at most in a folder; changes none.")
    ] = 256,
    label: Annotated[list[str] | None, typer.Option(help="A class to draw, by name; may be repeated.")] = None,
    labels: Annotated[
        Literal["auto", "balanced", "random"],
        typer.Option(help="Classes in turn or at random; by default as evaluation.labels, in turn for a .png."),
    ] = "auto",
    sampler: SamplerName = None,
    settings: Settings = None,
    average: Average = "ema",
    trust: Trusting = False,
    device: Device = "auto",
) -> None:
    """Draw samples from a run's newest checkpoint, or go on with it where it stopped.

    Into a folder or an array, with torchrun by any number of processes.

    Example: sitkit sample runs/digits --samples 50000 --out samples/sde --set sampler.kind=sde --set guidance.scale=2
    """
    from ..runs.run import Run
    from ..sampling.labels import Labels
    from ..sampling.sample import SampleRequest, check_out, to_array, to_folder, to_picture
    from ..sampling.sample_folder import SampleFolder
    from ..storage.work_partition import WorkPartition

    check_out(out)
    writable(out if out.suffix in (".png", ".npz") else out / "samples.json")
    run = Run.find(folder)
    recipe = run.recipe(trust_of(trust, settings))
    recipe = resample(recipe, settings, *AFTER_TRAINING, *PLACES, sampler=sampler, trust=trust)
    split = run.data(recipe, images=False)
    usual = "balanced" if out.suffix == ".png" or label else recipe.evaluation.labels
    rule = Labels(split.classes, usual if labels == "auto" else labels, tuple(label or ()))
    partition = WorkPartition.from_environment()
    request = SampleRequest(run, recipe, split, rule, seed, batch, average, partition.device(device_of(device)))
    if out.suffix == ".png":
        drawn = to_picture(request, num, out) if partition.is_main else None
    elif out.suffix == ".npz":
        drawn = to_array(request, num, out, partition)
    else:
        drawn = to_folder(request, num, out, partition)
        num = len(SampleFolder.open(out))  # there may have been more
    if drawn is not None:
        typer.echo(f"{out}: {num} samples, {drawn.calls} network calls a batch, {drawn.rows} network rows a sample")


@command
def export(
    samples: Annotated[Path, typer.Argument(metavar="SAMPLES", help="A folder of samples.")],
    out: Annotated[
        Path, typer.Option(metavar="PLACE", help="An .npz for ADM's evaluator, or a new folder of PNG files.")
    ],
) -> None:
    """Write samples as other programs read them: an array, or PNG files.

    Example: sitkit export samples/sde --out samples/sde.npz
    """
    from ..sampling.export import export as run_export
    from ..sampling.sample_folder import SampleFolder

    found = SampleFolder.open(samples)
    writable(out if out.suffix == ".npz" else out / "labels.json")
    run_export(found, out)
    typer.echo(f"{out}: {len(found)} samples")
