"""Caches of latents for tests: small autoencoders, numbered images, and a process that is killed while it encodes."""

import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sitkit.recipes.data.images import InMemory, Split, to_pixels
from sitkit.recipes.data.latents import vae
from sitkit.recipes.data.latents.cache import SourceRecord
from sitkit.recipes.data.latents.encode import encode
from sitkit.recipes.support.errors import UserError
from sitkit.samplers import philox

COUNT, SIZE, BLOCK, BATCH = 21, 8, 4, 3


def small(folder: Path, seed: int, **config: Any) -> Path:
    """Write a small random autoencoder with 2 channels and half the side."""
    torch.manual_seed(seed)
    blocks = {
        f"{way}_block_types": (kind,) * 2 for way, kind in (("down", "DownEncoderBlock2D"), ("up", "UpDecoderBlock2D"))
    }
    widths = {"block_out_channels": (4, 8), "latent_channels": 2, "norm_num_groups": 2, "layers_per_block": 1}
    import_module("diffusers").AutoencoderKL(
        **blocks, **widths, mid_block_add_attention=False, **config
    ).save_pretrained(folder)
    return folder


class Numbered(InMemory):
    """Random images with their number in the first pixel, some of which cannot be read."""

    def __init__(self, size: int = SIZE, unreadable: tuple[int, ...] = ()):
        pixels = torch.randint(256, (COUNT, 3, size, size), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
        pixels[:, 0, 0, 0] = torch.arange(COUNT)
        super().__init__(pixels, torch.arange(COUNT) % 3)
        object.__setattr__(self, "unreadable", unreadable)

    def read(self, numbers: Tensor, /) -> Tensor:
        for number in numbers.tolist():
            if number in vars(self)["unreadable"]:
                raise UserError(f"images/{number}.png is no image")
        return super().read(numbers)


def write(
    out: Path, autoencoder: Path, images: Numbered | None = None, model: Any = None, **settings: Any
) -> list[str]:
    """Encode images and return the output."""
    said: list[str] = []
    source = SourceRecord(description="numbered", fingerprint="0")
    given: dict[str, Any] = {
        "source": source,
        "vae_source": str(autoencoder),
        "batch": BATCH,
        "block": BLOCK,
        "timeout": 20.0,
    }
    model = model or vae.load(str(autoencoder))
    encode(images or Numbered(), ("a", "b", "c"), out, vae=model, **given | settings, say=said.append)
    return said


def watched(model: Any, then: Callable[[list[int]], None] = lambda numbers: None) -> list[int]:
    """Return a list to which the numbers of all encoded images are appended, without flipped ones."""
    numbers: list[int] = []
    encode_states = model.encode

    def watch(states: Tensor) -> Any:
        found = to_pixels(states[:, 0, 0, 0]).tolist()
        if found == list(
            range(found[0], min(found[0] + len(found), COUNT))
        ):  # a flipped image starts with another pixel
            numbers.extend(found)
            then(found)
        return encode_states(states)

    model.encode = watch
    return numbers


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def killed(out: Path, autoencoder: Path, log: Path, event: int) -> None:
    """Encode, and stop by SIGKILL at the n-th time that a file is opened or renamed, or images encoded."""
    torch.set_num_threads(1)
    left = event

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(name: str, args: tuple[Any, ...]) -> None:
        if name in ("open", "os.rename", "os.remove", "shutil.rmtree", "os.truncate") and str(out) in str(args[0]):
            count()

    def note(numbers: list[int]) -> None:
        with log.open("a") as stream:
            stream.write("".join(f"{number}\n" for number in numbers))
        count()

    model = vae.load(str(autoencoder))
    watched(model, then=note)
    sys.addaudithook(watch)
    write(out, autoencoder, model=model)


def noise_of(shape: tuple[int, ...]) -> Tensor:
    return philox.normal(philox.key(0, 0), torch.arange(COUNT), shape).float()


def own() -> Split:
    """Return custom data: three images to train on, two held out."""
    pixels = Numbered().pixels
    one, other = (InMemory(part, torch.zeros(len(part), dtype=torch.int64)) for part in (pixels[:3], pixels[3:5]))
    return Split(one, other, classes=())
