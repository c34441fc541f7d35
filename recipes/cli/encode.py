"""The command that encodes images to latents."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..support.limits import MOST_ROWS
from .common import LONGEST_SIDE, Device, command, device_of


@command
def encode(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A folder of images, or a data set: a kind, or the table of a recipe."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the latent cache.")],
    size: Annotated[
        int, typer.Option(min=1, max=LONGEST_SIDE, help="The side of the cropped images, in pixels.")
    ] = 256,
    vae: Annotated[str, typer.Option(metavar="FOLDER|ID", help="The autoencoder.")] = "stabilityai/sd-vae-ft-ema",
    batch: Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="How many images to encode at once.")] = 32,
    unreadable: Annotated[
        Literal["stop", "skip"], typer.Option(help="What to do about images that cannot be read.")
    ] = "stop",
    device: Device = "auto",
) -> None:
    """Encode images and their horizontal flips to latents, or resume an interrupted encoding.

    Example: sitkit encode data/imagenet/train --out data/imagenet256 --size 256
    """
    from .encode_source import encode_source

    encode_source(
        source, out, size=size, vae=vae, batch=batch, device=device_of(device), unreadable=unreadable, say=typer.echo
    )
