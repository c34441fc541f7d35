"""Commands that prepare data, train, and look into a training."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..problem import Problem
from .app import (
    LAST_STEP,
    LONGEST_SIDE,
    MOST_PROCESSES,
    MOST_ROWS,
    PLACES,
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
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A preset's name, a TOML file or a recipe.json.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder of the run.")] = None,
    settings: Settings = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what it would take.")] = False,
    processes: Annotated[
        int, typer.Option(min=1, max=MOST_PROCESSES, help="Of a dry run: how many processes would train.")
    ] = 8,
    trust: Trusting = False,
    device: Device = "auto",
) -> None:
    """Train a recipe, or go on with it where it stopped.

    Example: sitkit train digits --out runs/digits --set train.steps=2000
    """
    from ..reading import read

    if dry_run:
        from ..train.estimate import describe
        from ..train.facts import facts_of

        chosen = read(recipe, settings or (), trust_of(trust))
        typer.echo(describe(chosen, facts_of(chosen), processes))
        return
    if out is None:
        raise Problem("train needs --out DIR, the folder of the run")
    from ..train.loop import train as run

    run(read(recipe, settings or (), trust_of(trust)), out, device_of(device), typer.echo, trust_of(trust))


@command
def replay(
    folder: RunFolder,
    step: Annotated[int, typer.Option(min=1, max=LAST_STEP, help="Which step to repeat.")],
    settings: Settings = None,
    trust: Trusting = False,
    device: Device = "auto",
) -> None:
    """Repeat a step of a run, and show its samples with their losses; changes nothing.

    Example: sitkit replay runs/digits --step 100
    """
    from ..run import Run
    from ..train.replay import replay as run_replay

    run = Run.find(folder)
    run_replay(run, resample(run.recipe(trust_of(trust)), settings, *PLACES), step, device_of(device), typer.echo)


@command
def encode(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A folder of images, or data as a recipe has them.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the latents.")],
    size: Annotated[
        int, typer.Option(min=1, max=LONGEST_SIDE, help="The side to which images are cropped, in pixels.")
    ] = 256,
    vae: Annotated[str, typer.Option(metavar="FOLDER|ID", help="The autoencoder.")] = "stabilityai/sd-vae-ft-ema",
    batch: Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="Images at once.")] = 32,
    unreadable: Annotated[
        Literal["stop", "skip"], typer.Option(help="What to do about images that cannot be read.")
    ] = "stop",
    device: Device = "auto",
) -> None:
    """Encode images and their mirror images to latents, or go on with it where it stopped.

    Example: sitkit encode data/imagenet/train --out data/imagenet256 --size 256
    """
    from ..data.encoding import run as run_encoding

    run_encoding(
        source, out, size=size, vae=vae, batch=batch, device=device_of(device), unreadable=unreadable, say=typer.echo
    )
