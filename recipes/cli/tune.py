"""`sitkit tune`."""

from pathlib import Path
from typing import Annotated

import typer

from ..support.limits import MOST_ROWS, MOST_SEED
from .common import (
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
            help="Keys to vary, as sampler.w,guidance.scale; or with values, as 'guidance.scale=1.0|1.5|2.0'; may be "
            "repeated.",
        ),
    ],
    calls: Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="The largest NFE (network evaluations per sample).")],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The folder of the results; by default DIR/tune.")
    ] = None,
    number: Annotated[
        str | None, typer.Option(metavar="NAME", help="The metric to optimize; by default the first one.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="REF", help="The images to compare with, as in `sitkit evaluate`.")
    ] = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="The seed of the first draw.")] = 0,
    batch: Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="Samples at once; affects rounding only.")] = 256,
    average: Average = "ema",
    trust: Trusting = False,
    device: Device = "auto",
) -> None:
    """Search the best sampler settings of a trained run within a number of NFE, or resume the search.

    Chooses by samples of some seeds and reports others; writes sampler.toml (for `sample --sampler`) and tune.html.

    Example: sitkit tune runs/digits --over sampler.w,sampler.times,guidance.scale --calls 50 --set evaluation.draws=1
    """
    from ..experiment.changes import DATA_PATHS, SAMPLING
    from ..runs.run import Run
    from ..tune.run import run_tune

    run = Run.find(folder)
    recipe = resample(run.recipe(trust_of(trust, settings)), settings, *SAMPLING, "evaluation", *DATA_PATHS)
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
