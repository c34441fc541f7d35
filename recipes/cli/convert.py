"""`sitkit convert`: released weights as a run folder."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .common import LONGEST_SIDE, Settings, command, resample


@command
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pt or .safetensors file.")],
    family: Annotated[
        Literal["sit", "dit", "repa"],
        typer.Option(help="The model family of the weights, which the file does not state."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The run folder to write, new or empty.")],
    vae: Annotated[
        str, typer.Option(metavar="FOLDER|ID", help="The autoencoder that decodes states; none if they are pixels.")
    ] = "auto",
    num_heads: Annotated[
        int | None,
        typer.Option(min=1, max=LONGEST_SIDE, help="Attention heads, for networks that have no published size."),
    ] = None,
    ema: Annotated[bool, typer.Option(help="Use the EMA weights, or the raw ones.")] = True,
    settings: Settings = None,
) -> None:
    """Convert released weights to a run to sample from. It has no data unless --set names some.

    Example: sitkit convert SiT-XL-2-256x256.pt --family sit --out runs/sit-xl
    """
    from ..experiment.changes import SAMPLING
    from ..network.convert import check_new_or_empty, family_warning, read_weights, recipe_of, write_run

    check_new_or_empty(out)
    network = read_weights(file, family, num_heads=num_heads, ema=ema)
    recipe = resample(recipe_of(network, vae), settings, *SAMPLING, "data", "evaluation")
    write_run(network, recipe, out)
    if warning := family_warning(network):
        typer.echo(f"{file}: {warning}", err=True)
    million = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    typer.echo(f"{out}: {million:.2f} M parameters; sample from it: `sitkit sample {out} --samples 16 --out {out}.png`")
