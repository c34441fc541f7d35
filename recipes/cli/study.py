"""Commands about many ways to do one thing: studies."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..support.errors import UserError
from .common import MOST_PROCESSES, MOST_ROWS, Device, command, device_of


@command
def study(
    file: Annotated[
        Path, typer.Argument(metavar="STUDY.toml", help="What is varied of which recipe (docs/studies.md).")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the study.")],
    jobs: Annotated[
        int, typer.Option(min=1, max=MOST_PROCESSES, help="Processes at once, among which cores are divided.")
    ] = 1,
    only: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Only train or measure what has that key; may be repeated.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Only print what there is to do, and what is done.")] = False,
    models: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where networks are, for several studies to share.")
    ] = None,
    submit: Annotated[
        Literal["slurm"] | None, typer.Option(help="Give what is open to a cluster, a job each, by submitit.")
    ] = None,
    slurm: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of submitted jobs, as slurm_partition=gpu.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="Samples at once; changes no sample.")] = 512,
    device: Device = "auto",
) -> None:
    """Train and measure all that a study varies, or go on with it; writes study.json, study.md, study.html and plots.

    Every network is trained once, whatever is measured of it. Exit code 1: something failed, and all else is done.

    Example: sitkit study docs/results/steps.toml --out runs/steps --jobs 2
    """
    from ..study.run import Work, list_parts, run_study

    if len([one for one in (only, list_, submit) if one]) > 1:
        raise UserError("--only, --list and --submit: give one of them")
    if slurm and not submit:
        raise UserError("--slurm says how to --submit slurm: give that, too")
    options = [*(["--device", device] if device != "auto" else []), *(["--batch", str(batch)] if batch != 512 else [])]
    work = Work.open(file, out, models, options)
    if list_:
        typer.echo("\n".join(list_parts(work)))
    elif submit:
        from ..study.slurm import submit as run_submit

        submitted = run_submit(work, slurm or ())
        typer.echo(
            f"{len(submitted)} jobs submitted; when they have ended, the same command without --submit tables them"
        )
    elif only:
        from ..study.measure_cell import do

        for key in only:
            do(key, work.layout, work.folder, device_of(device), batch)
    else:
        device_of(device)
        if not run_study(work, jobs, typer.echo):
            raise typer.Exit(1)
