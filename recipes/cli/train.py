"""`sitkit train`, and `sitkit replay`, which repeats a step of a run."""

from pathlib import Path
from typing import Annotated

import typer

from ..support.errors import UserError
from .common import (
    LAST_STEP,
    MOST_PROCESSES,
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print size, work and memory.")] = False,
    processes: Annotated[
        int, typer.Option(min=1, max=MOST_PROCESSES, help="The number of processes, for --dry-run.")
    ] = 8,
    trust: Trusting = False,
    device: Device = "auto",
) -> None:
    """Train a recipe, or resume its run.

    Example: sitkit train digits --out runs/digits --set train.steps=2000
    """
    from ..experiment.read_recipe import read_recipe

    if dry_run:
        from ..training.cost_estimate import describe
        from ..training.data_summary import summary_of

        chosen = read_recipe(recipe, settings or (), trust_of(trust))
        typer.echo(describe(chosen, summary_of(chosen), processes))
        return
    if out is None:
        raise UserError("train needs --out DIR, the folder of the run")
    from ..training.loop import train as run

    run(read_recipe(recipe, settings or (), trust_of(trust)), out, device_of(device), typer.echo, trust_of(trust))


@command
def replay(
    folder: RunFolder,
    step: Annotated[int, typer.Option(min=1, max=LAST_STEP, help="The step to repeat.")],
    settings: Settings = None,
    trust: Trusting = False,
    device: Device = "auto",
) -> None:
    """Repeat a step of a run, and print its samples with their losses. Nothing is written.

    Example: sitkit replay runs/digits --step 100
    """
    from ..experiment.changes import DATA_PATHS
    from ..runs.run import Run
    from ..training.replay import replay as run_replay

    run = Run.find(folder)
    run_replay(run, resample(run.recipe(trust_of(trust)), settings, *DATA_PATHS), step, device_of(device), typer.echo)
