"""Commands to look at recipes, and at flows in the plane."""

from pathlib import Path
from typing import Annotated

import typer

from .common import LAST_STEP, MOST_SEED, Settings, Trusting, command, trust_of


@command
def plane(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the pictures.")],
    data: Annotated[str, typer.Option(metavar="NAME", help="moons, circles, checkerboard, pinwheel, ...")] = "moons",
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of all that is random.")] = 0,
    steps: Annotated[int, typer.Option(min=1, max=LAST_STEP, help="Steps of training.")] = 5000,
) -> None:
    """Carry noise to a target in the plane: trains in under a minute, then draws what was learnt.

    Example: sitkit plane --data checkerboard --out runs/plane
    """
    from ..plane.demo import plane as run_plane

    run_plane(data, out, seed=seed, steps=steps, say=typer.echo)


@command
def show(
    source: Annotated[
        str, typer.Argument(metavar="RECIPE|DIR", help="A preset, a TOML file, or a run's recipe.json or folder.")
    ],
    settings: Settings = None,
    trust: Trusting = False,
) -> None:
    """Print a whole recipe as TOML, with the numbers that `auto` stands for.

    Example: sitkit show digits --set path.kind=vp
    """
    from ..experiment.reading import change, read, to_toml
    from ..runs.run import Run

    if Path(source).is_dir():
        allowed = trust_of(trust, settings)
        recipe = change(Run.find(Path(source)).recipe(allowed), settings or (), allowed)
    else:
        recipe = read(source, settings or (), trust_of(trust))
    typer.echo(to_toml(recipe))
