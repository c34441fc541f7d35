"""The commands `sitkit show` and `sitkit plane`."""

from pathlib import Path
from typing import Annotated

import typer

from ..support.errors import UserError
from ..support.limits import MOST_SEED
from .common import LAST_STEP, SamplerName, Settings, Trusting, command, trust_of


@command
def plane(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the plots.")],
    data: Annotated[str, typer.Option(metavar="NAME", help="moons, circles, checkerboard, pinwheel, ...")] = "moons",
    source: Annotated[str, typer.Option(metavar="NAME", help="noise, or another of these distributions.")] = "noise",
    bridge: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The noise of a two-sided path: sine (default), quadratic, brownian."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of all randomness.")] = 0,
    steps: Annotated[int, typer.Option(min=1, max=LAST_STEP, help="Training steps.")] = 5000,
) -> None:
    """Train a flow from noise, or from another distribution, to a 2D distribution, and plot it, in about 80 seconds.

    flow.html is an interactive page: the ODE beside the SDE, with a time slider and a choice of w(t). With --source, a
    two-sided path connects two distributions, and the flows are solved in both directions.

    Example: sitkit plane --data checkerboard --out runs/plane
    """
    from ..plane.demo import plane as run_plane

    run_plane(data, out, source=source, bridge=bridge, seed=seed, steps=steps, say=typer.echo)


@command
def show(
    source: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE|DIR", help="A preset, a TOML file, or a run's recipe.json or folder."),
    ] = None,
    sampler: SamplerName = None,
    settings: Settings = None,
    trust: Trusting = False,
) -> None:
    """Print a complete recipe as TOML.

    `auto` is resolved in train.interval and in sampler.solver, times, interval, last and last_step. objective.measure
    (auto: the predicted quantity), sampler.path (the path of training) and evaluation.num (the number of held-out
    images) stay auto.

    Without a recipe, it prints the file of --sampler; without --sampler either, the names of all presets and samplers.

    Example: sitkit show digits --set path.kind=vp
    """
    from ..experiment.overrides import with_settings
    from ..experiment.packaged import listing
    from ..experiment.read_recipe import read_recipe
    from ..experiment.recipe_toml import recipe_to_toml
    from ..experiment.sampler_files import sampler_text, with_sampler
    from ..runs.run import Run

    if source is None:
        if settings:
            raise UserError(f"--set {settings[0]}: give a recipe to change")
        typer.echo(sampler_text(sampler).strip() if sampler is not None else listing())
        return
    allowed = trust_of(trust, settings)
    folder = Path(source)
    recipe = Run.find(folder).recipe(allowed) if folder.is_dir() else read_recipe(source, settings or (), allowed)
    if sampler is not None:
        recipe = with_sampler(recipe, sampler, allowed)
    typer.echo(recipe_to_toml(with_settings(recipe, settings or (), allowed)))
