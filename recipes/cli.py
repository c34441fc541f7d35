"""The command line.

Torch and the recipes are imported by the command that needs them, so that `--help` answers at once.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .problem import Problem

if TYPE_CHECKING:
    import torch

    from .recipe import Recipe

app = typer.Typer(
    help="Composable transport models: train, sample and evaluate SiT by recipe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe; may be repeated.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; by default a GPU where there is one.")]
RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run.")]


def main() -> None:
    """Run the command line."""
    app(prog_name="sitkit")


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function: a problem becomes its lines and exit code 2, an interrupt exit code 130."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except Problem as problem:
            typer.echo(f"sitkit: {problem}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("sitkit: interrupted; the same command goes on from here", err=True)
            raise typer.Exit(130) from None

    return app.command()(run)


@command
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A preset's name or a TOML file.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the run.")],
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """Train a recipe, or go on with it where it stopped.

    Example: sitkit train digits --out runs/digits --set train.steps=2000
    """
    from .reading import read
    from .train.loop import train as run

    run(read(recipe, settings or ()), out, _device(device), typer.echo)


@command
def sample(
    folder: RunFolder,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="A .png grid, or an .npz with arr_0 (N, H, W, 3) uint8, labels.")
    ],
    num: Annotated[int, typer.Option(min=1, help="How many samples.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampling.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Samples at once; changes no sample.")] = 512,
    label: Annotated[list[str] | None, typer.Option(help="A class to draw, by name; may be repeated.")] = None,
    settings: Settings = None,
    device: Device = "auto",
) -> None:
    """Draw samples from a run's newest checkpoint, every class in turn unless labels are given.

    Example: sitkit sample runs/digits --num 100 --out sde.png --set sampler.kind=sde --set guidance.scale=2
    """
    import torch

    from .run import Run
    from .sample.generate import choose_labels, draw, load_network
    from .sample.pictures import label_grid, save_arrays, save_picture

    if out.suffix not in (".png", ".npz"):
        raise Problem(f"--out must end in .png or .npz, got {out}")
    _writable(out)
    run = Run.find(folder)
    recipe = _resample(run.recipe(), settings)
    split = recipe.data.build()
    labels = choose_labels(torch.arange(num), split, label or ())
    network = load_network(recipe, split, run.latest(), _device(device))
    drawn = draw(network, recipe, split, num, seed=seed, labels=labels, batch=batch)
    if out.suffix == ".png":
        save_picture(label_grid(drawn.pixels, drawn.labels, split.classes), out)
    else:
        save_arrays(drawn.pixels, drawn.labels, out)
    typer.echo(f"{out}: {num} samples, {drawn.calls} network calls a batch, {drawn.rows} network rows a sample")


@command
def evaluate(
    folder: RunFolder,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first draw.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Samples at once; changes no sample.")] = 512,
    device: Device = "auto",
) -> None:
    """Measure a run's newest checkpoint against held-out data; writes report.json and report.html into DIR.

    Example: sitkit evaluate runs/digits --set evaluation.draws=3
    """
    from .evaluate.evaluation import evaluate as run_evaluation
    from .run import Run

    run = Run.find(folder)
    recipe = _resample(run.recipe(), settings, "evaluation")
    _writable(folder / "report.json")
    typer.echo(run_evaluation(run, recipe, _device(device), seed=seed, batch=batch))


@command
def likelihood(
    folder: RunFolder,
    num: Annotated[int, typer.Option(min=1, help="How many held-out images, from the first.")] = 512,
    probes: Annotated[
        int | None,
        typer.Option(
            min=0, help="Random probes of the divergence; 0 is exact, the default for images of up to 256 numbers."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of dequantisation and probes.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 512,
    device: Device = "auto",
) -> None:
    """Measure held-out images in bits per dimension under a run's newest checkpoint; writes likelihood.json into DIR.

    Example: sitkit likelihood runs/digits --num 128
    """
    from .evaluate.likelihood import likelihood as run_likelihood
    from .run import Run

    run = Run.find(folder)
    _writable(folder / "likelihood.json")
    recipe = run.recipe()
    typer.echo(run_likelihood(run, recipe, _device(device), num=num, probes=probes, seed=seed, batch=batch))


@command
def plane(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the pictures.")],
    data: Annotated[str, typer.Option(metavar="NAME", help="moons, circles, checkerboard, pinwheel, ...")] = "moons",
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is random.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 5000,
) -> None:
    """Carry noise to a target in the plane: trains in under a minute, then draws what was learnt.

    Example: sitkit plane --data checkerboard --out runs/plane
    """
    from .plane.flow import plane as run_plane

    run_plane(data, out, seed=seed, steps=steps, say=typer.echo)


@command
def show(
    source: Annotated[str, typer.Argument(metavar="RECIPE|DIR", help="A preset, a TOML file or the folder of a run.")],
    settings: Settings = None,
) -> None:
    """Print a whole recipe as TOML, with the numbers that `auto` stands for.

    Example: sitkit show digits --set path.kind=vp
    """
    from .reading import override, read, to_toml
    from .run import Run

    if Path(source).is_dir():
        recipe = override(Run.find(Path(source)).recipe().model_dump(mode="json"), settings or ())
    else:
        recipe = read(source, settings or ())
    typer.echo(to_toml(recipe))


def _resample(recipe: "Recipe", settings: list[str] | None, *more: str) -> "Recipe":
    """Return a run's recipe with settings that can still be chosen after training."""
    from .reading import override

    allowed = ("sampler", "guidance", *more)
    for setting in settings or ():
        if setting.partition(".")[0] not in allowed:
            raise Problem(f"--set {setting}: of a trained run only {', '.join(allowed)} can be changed")
    return override(recipe.model_dump(mode="json"), settings or ())


def _writable(file: Path) -> None:
    """Raise a problem if a file cannot be written, before anything is computed for it."""
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    if file.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise Problem(f"{file} cannot be written: {'it is a folder' if file.is_dir() else f'see {folder}'}")


def _device(name: str) -> "torch.device":
    """Return the device of that name."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise Problem(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from None
    return device
