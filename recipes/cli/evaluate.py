"""The commands `sitkit evaluate`, `reference` and `compare`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..support.errors import UserError
from ..support.limits import MOST_ROWS, MOST_SEED
from .common import (
    LONGEST_SIDE,
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

Crop = Annotated[bool, typer.Option("--crop", help="Crop the images of a folder to the size of samples, as ADM does.")]
Batch = Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="Images at once; affects rounding only.")]


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
            help="What to compare with: a folder of images or of samples, an .npz with mu and sigma or arr_0 as of "
            "ADM, or an .npz of `sitkit reference`; by default the held-out images of the run's data.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of the report; by default DIR or SAMPLES."),
    ] = None,
    sampler: SamplerName = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of the first set of samples.")] = 0,
    batch: Batch = 256,
    crop: Crop = False,
    average: Average = "ema",
    trust: Trusting = False,
    device: Device = "auto",
) -> None:
    """Compare samples with real images, or resume; writes report.json and report.html.

    SAMPLES are samples of `sitkit sample`, or any images in an .npz or a folder. For a run, samples are generated from
    its newest checkpoint with the sampler and guidance of its recipe. Runs on any number of processes with torchrun.

    Example: sitkit evaluate runs/digits --set evaluation.draws=3
    """
    from ..evaluation.config import EvaluationConfig
    from ..evaluation.evaluate import evaluate as run_evaluation
    from ..evaluation.evaluate import evaluate_images, evaluate_samples
    from ..evaluation.text_table import table
    from ..experiment.changes import DATA_PATHS, SAMPLING
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
        raise UserError(f"--sampler {sampler}: the samples in {source} already have a sampler; give a run")
    if kind == "images":
        recipe = read_recipe("digits").model_copy(update={"evaluation": Evaluation()})
        recipe = resample(recipe, settings, "evaluation", of="existing samples")
    elif kind == "samples":
        stored: Any = SampleFolder.open(source).content.manifest.get("recipe")
        recipe = recipe_from_table(with_new_keys(stored), trust=trust_of(trust, settings))
        recipe = resample(recipe, settings, "evaluation", of="existing samples")
    else:
        run = Run.find(source)
        recipe = run.recipe(trust_of(trust, settings))
        recipe = resample(recipe, settings, *SAMPLING, "evaluation", *DATA_PATHS, sampler=sampler, trust=trust)
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
    """Return what a path to evaluate holds.

    Raises:
        UserError: it holds neither a run nor samples nor images.
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
        reason = ""
    except ValueError as error:
        reason = f" ({error})"
    raise UserError(
        f"there is no run in {source}, and no samples{reason}: give the folder of a run or of samples, an .npz with "
        "arr_0 or a folder of images"
    )


def _beside(source: Path) -> Path:
    """Return the folder of the report on images: beside them."""
    whole = source.resolve()
    return whole.with_name(f"{whole.stem if whole.is_file() else whole.name}-evaluation")


@command
def reference(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder of images, or an .npz with arr_0.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The .npz file of the statistics.")],
    size: Annotated[int, typer.Option(min=1, max=LONGEST_SIDE, help="Side of the images, in pixels.")] = 256,
    channels: Annotated[int, typer.Option(min=1, max=3, help="Channels of the images: 3, or 1 for grey.")] = 3,
    features: Annotated[
        str,
        typer.Option(metavar="KIND", help="Feature extractor, as evaluation.features; a TOML table sets its fields."),
    ] = "inception",
    batch: Batch = 256,
    crop: Crop = False,
    device: Device = "auto",
) -> None:
    """Store the statistics of real images, as a reference for samples, or resume.

    Example: sitkit reference data/imagenet/train --out imagenet256.npz --size 256 --crop --features inception
    """
    from ..evaluation.write_reference import write_reference
    from ..storage.work_partition import WorkPartition

    writable(out)
    partition = WorkPartition.from_environment()
    image = (channels, size, size)
    line = write_reference(source, out, image, features, crop, batch, partition.device(device_of(device)), partition)
    if line:
        typer.echo(line)


@command
def compare(
    one: Annotated[Path, typer.Argument(metavar="A", help="A report, or its folder.")],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another report, or its folder.")],
) -> None:
    """Print two reports side by side: their metrics, and the settings that differ.

    Example: sitkit compare runs/digits runs/other
    """
    from ..evaluation.compare import compare as run_compare

    typer.echo(run_compare(one, other))
