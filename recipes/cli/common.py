"""What the commands share: how they are declared, and what several of them take."""

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..storage.filesystems import check_system
from ..support.errors import UserError
from .errors import line_of, write_any_text

if TYPE_CHECKING:
    import torch

    from ..experiment.recipe import Recipe
    from ..support.trust import Trust

app = typer.Typer(
    help="Composable transport models: train, sample and evaluate SiT by recipe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

MOST_SEED = 2**62
"""Seeds of further draws follow the first, and all have 64 bits."""
MOST_ROWS = 2**20
"""At once: their noise is held in memory, whatever their network takes."""
MOST_IMAGES = 10**9
"""Each shard of them is looked for by name."""
LONGEST_SIDE = 2**16
"""Of images: JPEG has no longer one."""
LAST_STEP = 10**8 - 1
"""Names of checkpoints have eight digits."""
MOST_PROCESSES = 10**6

Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe; may be repeated.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; by default a GPU where there is one.")]
Average = Annotated[
    str, typer.Option(metavar="NAME", help="Which average of the weights: ema, ema-0.999, width-0.1, ...")
]
SamplerName = Annotated[
    str | None,
    typer.Option(
        "--sampler",
        metavar="NAME|FILE",
        help="A sampler by name (`sitkit show` lists them), or a TOML file as `sitkit tune` writes it; --set overrides "
        "it.",
    ),
]
Trusting = Annotated[
    bool,
    typer.Option("--trust", help="Run code that is no part of sitkit and that the files of DIR name: it can do all."),
]
RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run.")]


LESS_MEMORY = (
    "lower train.batch, raise compute.gradient_accumulation, set compute.activation_checkpointing = true, or use a "
    "smaller network and images"
)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function: what a user can mend becomes a line and exit code 2, an interrupt exit code 130."""
    takes_batch = "batch" in inspect.signature(function).parameters
    lower = "lower --batch, or use a smaller network" if takes_batch else LESS_MEMORY

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        write_any_text()
        try:
            check_system()
            function(*args, **kwargs)
        except KeyboardInterrupt:
            typer.echo("sitkit: interrupted; the same command goes on from here", err=True)
            raise typer.Exit(130) from None
        except Exception as error:
            line = line_of(error, lower)
            if line is None:
                raise
            typer.echo(f"sitkit: {line}", err=True)
            raise typer.Exit(2) from None

    return app.command()(run)


AFTER_TRAINING = ("sampler", "guidance", "compute")
PLACES = ("data.path", "data.heldout", "data.vae")
"""Where a run's data lie now; they are compared with those that it was created with."""


def resample(
    recipe: "Recipe",
    settings: list[str] | None,
    *allowed: str,
    of: str = "a trained run",
    sampler: str | None = None,
    trust: bool = False,
) -> "Recipe":
    """Return a recipe with the sampler of a file and then with settings, of which some parts can still be chosen."""
    from ..experiment.changes import change_trained

    return change_trained(recipe, settings or (), allowed, of=of, sampler=sampler, trust=trust_of(trust))


def trust_of(trust: bool, settings: list[str] | None = None) -> "Trust":
    """Return trust in the code that files name, if the user gave `--trust`, and in what settings name."""
    from ..experiment.settings import trust_in_settings
    from ..support.trust import TRUST_EVERYTHING

    return TRUST_EVERYTHING if trust else trust_in_settings(settings or ())


def writable(file: Path) -> None:
    """Raise a problem if a file cannot be written, before anything is computed for it."""
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    if file.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{file} cannot be written: {'it is a folder' if file.is_dir() else f'see {folder}'}")


def device_of(name: str) -> "torch.device":
    """Return the device of that name, and make this process ready to compute there."""
    from ..network.device import device_of

    return device_of(name)
