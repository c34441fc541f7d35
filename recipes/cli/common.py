"""The declaration of commands, and the options that several commands have."""

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ..storage.filesystems import check_system
from ..support.errors import UserError
from .errors import line_of, write_any_text

if TYPE_CHECKING:
    import torch

    from ..experiment.recipe import Recipe
    from ..support.trust import Trust

FIRST = ("train", "sample", "evaluate", "show", "plane")
"""The commands that `sitkit --help` lists first."""


class CommandGroup(TyperGroup):
    """The commands: the most common ones first, then the others by name."""

    def list_commands(self, context: Any) -> list[str]:
        """Return the names of the commands, in their order."""
        names = super().list_commands(context)
        return [*FIRST, *sorted({*names} - {*FIRST})]


app = typer.Typer(
    cls=CommandGroup,
    help="Composable transport models: train, sample and evaluate SiT by recipe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

LONGEST_SIDE = 2**16
"""The longest side of an image in JPEG."""
LAST_STEP = 10**8 - 1
"""The largest step. Names of checkpoints have eight digits."""
MOST_PROCESSES = 10**6

Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe; may be repeated.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; by default a GPU if there is one.")]
Average = Annotated[str, typer.Option(metavar="NAME", help="The EMA weights to use: ema, ema-0.999, width-0.1, ...")]
SamplerName = Annotated[
    str | None,
    typer.Option(
        "--sampler",
        metavar="NAME|FILE",
        help="A sampler by name (`sitkit show` lists them), or a TOML file, such as one of `sitkit tune`; --set "
        "overrides it.",
    ),
]
Trusting = Annotated[
    bool,
    typer.Option(
        "--trust", help="Run code outside of sitkit that a run, samples or a sampler file name; it can do anything."
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run.")]


LESS_MEMORY = (
    "lower train.batch, raise compute.gradient_accumulation, set compute.activation_checkpointing = true, or use a "
    "smaller network and images"
)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function a command. A `UserError` is printed as one line with exit code 2; an interrupt exits with 130."""
    takes_batch = "batch" in inspect.signature(function).parameters
    advice = "lower --batch, or use a smaller network" if takes_batch else LESS_MEMORY

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        write_any_text()
        try:
            check_system()
            function(*args, **kwargs)
        except KeyboardInterrupt:
            typer.echo("sitkit: interrupted; run the same command again to resume", err=True)
            raise typer.Exit(130) from None
        except Exception as error:
            line = line_of(error, advice)
            if line is None:
                raise
            typer.echo(f"sitkit: {line}", err=True)
            raise typer.Exit(2) from None

    return app.command()(run)


def resample(
    recipe: "Recipe",
    settings: list[str] | None,
    *allowed: str,
    of: str = "a trained run",
    sampler: str | None = None,
    trust: bool = False,
) -> "Recipe":
    """Return a recipe with a sampler by name or from a file, then with settings of the allowed sections."""
    from ..experiment.changes import change_trained

    return change_trained(recipe, settings or (), allowed, of=of, sampler=sampler, trust=trust_of(trust))


def trust_of(trust: bool, settings: list[str] | None = None) -> "Trust":
    """Return trust in the code that files name, if the user gave `--trust`, and in the code that settings name."""
    from ..experiment.load_recipe import trust_of

    return trust_of(trust, settings or ())


def writable(file: Path) -> None:
    """Raise a `UserError` if a file cannot be written, before anything is computed."""
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    if file.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{file} cannot be written: {'it is a folder' if file.is_dir() else f'see {folder}'}")


def device_of(name: str) -> "torch.device":
    """Return the device with this name, and prepare this process to compute there."""
    from ..network.device import device_of

    return device_of(name)
