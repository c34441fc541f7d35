"""The command that makes runs of released weights."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .common import AFTER_TRAINING, LONGEST_SIDE, Settings, command, resample


@command
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pt or .safetensors file of such layers.")],
    family: Annotated[
        Literal["sit", "dit", "repa"], typer.Option(help="Whose they are; the names of the weights do not tell.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the run, new or empty.")],
    vae: Annotated[
        str, typer.Option(metavar="FOLDER|ID", help="The autoencoder that makes pixels of states; none if they are.")
    ] = "auto",
    num_heads: Annotated[
        int | None,
        typer.Option(min=1, max=LONGEST_SIDE, help="Of the attention, for widths that are not of a published size."),
    ] = None,
    ema: Annotated[bool, typer.Option(help="The averaged weights, or the raw ones.")] = True,
    settings: Settings = None,
) -> None:
    """Make a run of released weights, to sample from; without data, unless --set names some.

    Example: sitkit convert SiT-XL-2-256x256.pt --family sit --out runs/sit-xl
    """
    from ..network.convert import check_free, doubt, read_weights, recipe_of, write_run

    check_free(out)
    network = read_weights(file, family, num_heads=num_heads, ema=ema)
    recipe = resample(recipe_of(network, vae), settings, *AFTER_TRAINING, "data", "evaluation")
    write_run(network, recipe, out)
    if said := doubt(network):
        typer.echo(f"{file}: {said}", err=True)
    million = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    typer.echo(f"{out}: {million:.2f} M parameters; `sitkit sample {out} --samples 16 --out {out}.png` draws from it")
