"""The command that encodes images to latents."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .common import LONGEST_SIDE, MOST_ROWS, Device, command, device_of


@command
def encode(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A folder of images, or data as a recipe has them.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the latents.")],
    size: Annotated[
        int, typer.Option(min=1, max=LONGEST_SIDE, help="The side to which images are cropped, in pixels.")
    ] = 256,
    vae: Annotated[str, typer.Option(metavar="FOLDER|ID", help="The autoencoder.")] = "stabilityai/sd-vae-ft-ema",
    batch: Annotated[int, typer.Option(min=1, max=MOST_ROWS, help="Images at once.")] = 32,
    unreadable: Annotated[
        Literal["stop", "skip"], typer.Option(help="What to do about images that cannot be read.")
    ] = "stop",
    device: Device = "auto",
) -> None:
    """Encode images and their mirror images to latents, or go on with it where it stopped.

    Example: sitkit encode data/imagenet/train --out data/imagenet256 --size 256
    """
    from .encode_source import encode_source

    encode_source(
        source, out, size=size, vae=vae, batch=batch, device=device_of(device), unreadable=unreadable, say=typer.echo
    )
