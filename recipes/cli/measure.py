"""Commands that measure samples."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..support.errors import UserError
from .common import (
    AFTER_TRAINING,
    LONGEST_SIDE,
    MOST_ROWS,
    MOST_SEED,
    PLACES,
    Average,
    Device,
    SamplerName,
    Settings,
    Trusting,
    command,
    device_of,
    resample,
    trust_of,
    writable,
)

Crop = Annotated[bool, typer.Option("--crop", help="Cut the images of a folder to the size of samples, as ADM does.")]
Batch = Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="Images at once; changes no number but by rounding.")]


@command
def evaluate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|SAMPLES", help="The folder of a run or of samples; an .npz with arr_0; a folder of images."
        ),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="REF",
            help="What to compare with: a folder of images or of samples, an .npz with mu and sigma or arr_0 as ADM "
            "has them, or of `sitkit reference`; by default what the run's data hold out.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Of the report; by default DIR or SAMPLES, and beside images.")
    ] = None,
    sampler: SamplerName = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of the first draw.")] = 0,
    batch: Batch = 256,
    crop: Crop = False,
    average: Average = "ema",
    trust: Trusting = False,
    device: Device = "auto",
) -> None:
    """Measure samples against real images, or go on with it where it stopped; writes report.json and report.html.

    Samples are those of `sitkit sample`, or any images in an .npz or in files. Of a run, samples of the newest
    checkpoint are drawn as its recipe says. With torchrun, by any number of processes.

    Example: sitkit evaluate runs/digits --set evaluation.draws=3
    """
    from ..evaluation.config import EvaluationConfig
    from ..evaluation.evaluate import evaluate as run_evaluation
    from ..evaluation.evaluate import evaluate_images, evaluate_samples
    from ..evaluation.text_table import table
    from ..experiment.overrides import recipe_from_table
    from ..experiment.read_recipe import read_recipe
    from ..experiment.recipe import Evaluation
    from ..experiment.renamed_keys import with_new_keys
    from ..runs.run import Run
    from ..sampling.sample_folder import SampleFolder
    from ..storage.work_partition import WorkPartition

    kind = _kind_of(source)
    place = out or (_beside(source) if kind == "images" else source)
    writable(place / "report.json")
    partition = WorkPartition.from_environment()
    where = partition.device(device_of(device))
    if kind != "run" and sampler is not None:
        raise UserError(f"--sampler {sampler}: the samples in {source} are drawn")
    if kind == "images":
        usual = read_recipe("digits").model_copy(update={"evaluation": Evaluation()})
        recipe = resample(usual, settings, "evaluation", of="samples that are drawn")
    elif kind == "samples":
        drawn: Any = SampleFolder.open(source).content.manifest.get("recipe")
        recipe = recipe_from_table(with_new_keys(drawn), trust=trust_of(trust, settings))
        recipe = resample(recipe, settings, "evaluation", of="samples that are drawn")
    else:
        run = Run.find(source)
        recipe = run.recipe(trust_of(trust, settings))
        recipe = resample(recipe, settings, *AFTER_TRAINING, "evaluation", *PLACES, sampler=sampler, trust=trust)
    config = EvaluationConfig(recipe.evaluation.features, reference, crop, batch, where, place, partition)
    if kind == "images":
        report = evaluate_images(source, config)
    elif kind == "samples":
        report = evaluate_samples(source, recipe, config)
    else:
        report = run_evaluation(run, recipe, config, seed=seed, average=average)
    if report is not None:
        typer.echo(f"{table(report)}\n{place / 'report.html'}")


def _kind_of(source: Path) -> Literal["run", "samples", "images"]:
    """Return what stands at a path that is to be measured.

    Raises:
        UserError: it is nothing of the kind.
    """
    from ..data.file_listing import list_files
    from ..data.image_decoding import image_suffixes
    from ..sampling.sample_folder import CONTENT

    if (source / CONTENT).is_file():
        return "samples"
    if (source / "recipe.json").is_file():
        return "run"
    try:
        if source.is_file() or list_files(source, image_suffixes()).names:
            return "images"
        told = ""
    except ValueError as error:
        told = f" ({error})"
    raise UserError(
        f"there is no run in {source}, and there are no samples{told}: give the folder of a run or of samples, an .npz "
        "with arr_0, or a folder of images"
    )


def _beside(source: Path) -> Path:
    """Return the folder of a report on images, which stands beside them."""
    whole = source.resolve()
    return whole.with_name(f"{whole.stem if whole.is_file() else whole.name}-evaluation")


@command
def reference(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder of images, or an .npz with arr_0.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The .npz of the statistics.")],
    size: Annotated[int, typer.Option(min=1, max=LONGEST_SIDE, help="The side of the images, in pixels.")] = 256,
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
    from ..evaluation.write_reference import write_reference
    from ..storage.work_partition import WorkPartition

    writable(out)
    partition = WorkPartition.from_environment()
    image = (channels, size, size)
    said = write_reference(source, out, image, features, crop, batch, partition.device(device_of(device)), partition)
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
    from ..evaluation.compare import compare as run_compare

    typer.echo(run_compare(one, other))
