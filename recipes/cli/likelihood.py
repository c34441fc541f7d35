"""The command `sitkit likelihood`."""

from typing import Annotated

import typer

from ..support.limits import MOST_IMAGES, MOST_ROWS, MOST_SEED
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
    writable,
)


@command
def likelihood(
    folder: RunFolder,
    num: Annotated[
        int,
        typer.Option("--images", "--num", min=1, max=MOST_IMAGES, help="Number of held-out images, in order."),
    ] = 512,
    probes: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MOST_ROWS,
            help="Random probes of the divergence; 0 is exact, the default for images of up to 256 values.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of dequantisation and probes.")] = 0,
    batch: Annotated[
        int, typer.Option(min=1, max=MOST_ROWS, help="Images at once; they share the solver's steps.")
    ] = 64,
    rtol: Annotated[float, typer.Option(min=0, help="Relative error tolerance of the solver.")] = 1e-5,
    atol: Annotated[float, typer.Option(min=0, help="Absolute error tolerance of the solver.")] = 1e-6,
    average: Average = "ema",
    settings: Settings = None,
    trust: Trusting = False,
    device: Device = "auto",
) -> None:
    """Compute bits per dimension of held-out images under a run's newest checkpoint, or resume.

    Writes likelihood.json into DIR, and each finished batch of images into DIR/likelihood. Runs on any number of
    processes with torchrun.

    Example: sitkit likelihood runs/digits --images 128
    """
    from ..evaluation.likelihood import likelihood as run_likelihood
    from ..experiment.changes import DATA_PATHS
    from ..runs.run import Run

    run = Run.find(folder)
    writable(folder / "likelihood.json")
    run_likelihood(
        run,
        resample(run.recipe(trust_of(trust)), settings, *DATA_PATHS),
        device_of(device),
        num=num,
        probes=probes,
        seed=seed,
        batch=batch,
        average=average,
        rtol=rtol,
        atol=atol,
        say=typer.echo,
    )
