"""`sitkit study`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..support.errors import UserError
from ..support.limits import MOST_ROWS
from .common import MOST_PROCESSES, Device, command, device_of


@command
def study(
    file: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The file of the study (docs/studies.md).")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the study.")],
    jobs: Annotated[
        int, typer.Option(min=1, max=MOST_PROCESSES, help="Processes at once, which divide the cores.")
    ] = 1,
    only: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Compute only the job of this key; may be repeated.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Only print the keys of all jobs, and which are done.")] = False,
    models: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder of the networks, which several studies can share.")
    ] = None,
    submit: Annotated[
        Literal["slurm"] | None, typer.Option(help="Submit the jobs that are not done to a cluster, by submitit.")
    ] = None,
    slurm: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A parameter of submitted jobs, as slurm_partition=gpu."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="Samples at once; affects rounding only.")] = 512,
    device: Device = "auto",
) -> None:
    """Train and evaluate all combinations of a study, or resume it; writes study.json, study.md, study.html and plots.

    A job trains a network or evaluates a cell. Each network is trained once. Exit code 1: a job failed, and all jobs
    that do not depend on it are done.

    Example: sitkit study docs/results/steps.toml --out runs/steps --jobs 2
    """
    from ..study.run import StudyRun, list_parts, run_study

    if len([one for one in (only, list_, submit) if one]) > 1:
        raise UserError("--only, --list and --submit: give one of them")
    if slurm and not submit:
        raise UserError("--slurm needs --submit slurm: give that, too")
    options = [*(["--device", device] if device != "auto" else []), *(["--batch", str(batch)] if batch != 512 else [])]
    run = StudyRun.open(file, out, models, options)
    if list_:
        typer.echo("\n".join(list_parts(run)))
    elif submit:
        from ..study.slurm import submit as run_submit

        submitted = run_submit(run, slurm or ())
        typer.echo(
            f"{len(submitted)} jobs submitted; after they have ended, this command without --submit writes the tables"
        )
    elif only:
        from ..study.parts import compute

        for key in only:
            compute(key, run.grid, run.folder, device_of(device), batch)
    else:
        device_of(device)
        if not run_study(run, jobs, typer.echo):
            raise typer.Exit(1)
