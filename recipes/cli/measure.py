"""Commands that measure samples."""

from pathlib import Path
from typing import Annotated

import typer

from ..problem import Problem
from .app import (
    AFTER_TRAINING,
    PLACES,
    Average,
    Device,
    SamplerFile,
    Settings,
    Trusting,
    command,
    device_of,
    resample,
    trust_of,
    writable,
)

Crop = Annotated[bool, typer.Option("--crop", help="Cut the images of a folder to the size of samples, as ADM does.")]
Batch = Annotated[int, typer.Option(min=1, help="Images at once; changes no number but by rounding.")]


@command
def evaluate(
    source: Annotated[Path, typer.Argument(metavar="DIR|SAMPLES", help="The folder of a run, or of samples.")],
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="REF",
            help="What to compare with: a folder of images, an .npz with mu and sigma or arr_0 as ADM has them, or of "
            "`sitkit reference`; by default what the run's data hold out.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Of the report; by default DIR or SAMPLES.")
    ] = None,
    sampler: SamplerFile = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first draw.")] = 0,
    batch: Batch = 256,
    crop: Crop = False,
    average: Average = "ema",
    trust: Trusting = False,
    device: Device = "auto",
) -> None:
    """Measure samples against real images, or go on with it where it stopped; writes report.json and report.html.

    Of a run, samples of the newest checkpoint are drawn as its recipe says. With torchrun, by any number of processes.

    Example: sitkit evaluate runs/digits --set evaluation.draws=3
    """
    from ..evaluate.evaluation import Question, evaluate_samples
    from ..evaluate.evaluation import evaluate as run_evaluation
    from ..evaluate.table import table
    from ..run import Run
    from ..sample.shards import CONTENT, SampleFolder
    from ..share import Share

    place = out or source
    writable(place / "report.json")
    share = Share.of_environment()
    where = share.device(device_of(device))
    drawn = (source / CONTENT).is_file()
    if drawn and sampler is not None:
        raise Problem(f"--sampler {sampler}: the samples in {source} are drawn")
    if drawn:
        from ..reading import override

        recipe = override(SampleFolder.open(source).content.manifest["recipe"], trust=trust_of(trust, settings))
        recipe = resample(recipe, settings, "evaluation", of="samples that are drawn")
    else:
        run = Run.find(source)
        recipe = run.recipe(trust_of(trust, settings))
        recipe = resample(recipe, settings, *AFTER_TRAINING, "evaluation", *PLACES, sampler=sampler, trust=trust)
    question = Question(recipe.evaluation.features, reference, crop, batch, where, place, share)
    if drawn:
        report = evaluate_samples(source, recipe, question)
    else:
        report = run_evaluation(run, recipe, question, seed=seed, average=average)
    if report is not None:
        typer.echo(f"{table(report)}\n{place / 'report.html'}")


@command
def reference(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder of images, or an .npz with arr_0.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The .npz of the statistics.")],
    size: Annotated[int, typer.Option(min=1, help="The side of the images, in pixels.")] = 256,
    channels: Annotated[int, typer.Option(min=1, max=3, help="3, or 1 for grey images.")] = 3,
    features: Annotated[
        str,
        typer.Option(metavar="KIND", help="The extractor, as evaluation.features; TOML for its fields."),
    ] = "inception",
    batch: Batch = 256,
    crop: Crop = False,
    device: Device = "auto",
) -> None:
    """Write down the statistics of real images once for all, to compare samples with; it goes on where it stopped.

    Example: sitkit reference data/imagenet/train --out imagenet256.npz --size 256 --crop --features inception
    """
    from ..evaluate.writing import write_reference
    from ..share import Share

    writable(out)
    share = Share.of_environment()
    image = (channels, size, size)
    said = write_reference(source, out, image, features, crop, batch, share.device(device_of(device)), share)
    if said:
        typer.echo(said)


@command
def compare(
    one: Annotated[Path, typer.Argument(metavar="A", help="A report, or the folder that it is in.")],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
) -> None:
    """Show two reports side by side: their numbers, and every setting that differs.

    Example: sitkit compare runs/digits runs/other
    """
    from ..evaluate.compare import compare as run_compare

    typer.echo(run_compare(one, other))
