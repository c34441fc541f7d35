"""The command that chooses a sampler for a trained run."""

from pathlib import Path
from typing import Annotated

import typer

from .common import (
    AFTER_TRAINING,
    MOST_ROWS,
    MOST_SEED,
    PLACES,
    Average,
    Device,
    RunFolder,
    Settings,
    Trusting,
    command,
    device_of,
    resample,
    trust_of,
)


@command
def tune(
    folder: RunFolder,
    over: Annotated[
        list[str],
        typer.Option(
            metavar="KEYS",
            help="What to vary, as sampler.w,guidance.scale; or with its values, as 'guidance.scale=1.0|1.5|2.0'; may "
            "be repeated.",
        ),
    ],
    calls: Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="Calls of the network for a batch, at most.")],
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Of what is found; by default DIR/tune.")] = None,
    number: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of evaluation, to come near to that of real images.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="REF", help="What to compare with, as in `sitkit evaluate`.")
    ] = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of the first draw.")] = 0,
    batch: Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="Samples at once; changes no sample.")] = 256,
    average: Average = "ema",
    trust: Trusting = False,
    device: Device = "auto",
) -> None:
    """Search the sampler that is best for a trained run with so many network calls, or go on with it.

    Chooses by some seeds and reports by others; writes sampler.toml, which `sample --sampler` takes, and tune.html.

    Example: sitkit tune runs/digits --over sampler.w,sampler.times,guidance.scale --calls 50 --set evaluation.draws=1
    """
    from ..runs.run import Run
    from ..tune.run import run_tune

    run = Run.find(folder)
    recipe = resample(run.recipe(trust_of(trust, settings)), settings, *AFTER_TRAINING, "evaluation", *PLACES)
    run_tune(
        run,
        recipe,
        over,
        calls,
        out or folder / "tune",
        number=number,
        reference=reference,
        seed=seed,
        batch=batch,
        average=average,
        device=device_of(device),
        say=typer.echo,
    )
