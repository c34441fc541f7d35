"""The folder of a latent cache: its files and its index.

- `moments.npy`: (N, 2, 2C, h, w) float16: for each image, and for its mirror image, the means and then the standard
  deviations of its latents, in the autoencoder's own scale;
- `labels.npy`: (N,) int64, the class of each, -1 for an image that was left out, whose moments are not numbers;
- `index.json`: what they are, as `Index` describes; it is written last, so that a cache which has it is whole;
- `.progress/`: what is known of an encoding that is not finished.

Why standard deviations and not the logarithms of variances: in float16 they keep a relative error of 2^-11 down to
6e-5, and an absolute one of 3e-8 below; the means beside them are rounded to 2^-11 of themselves, which is more. A
logarithm near -20 is rounded to 2^-7, and so its standard deviation to 0.4 per cent. The largest, e^10, fits.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from ...storage.arrays import map_npy
from ...storage.files import read_regular, sha256
from ...storage.npy_header import ArrayError
from ...support.errors import UserError
from ...support.schema import Section

INDEX, MOMENTS, LABELS, PROGRESS = "index.json", "moments.npy", "labels.npy", ".progress"

Count = Annotated[int, Field(ge=1)]
Shape = tuple[Count, Count, Count]


class SourceRecord(Section):
    """Where images come from: in words, and a fingerprint that is another if they are other images."""

    description: str
    fingerprint: str


class AutoencoderRecord(Section):
    """What encoded them: its name, and the sha256 of all its weights and of those that make latents."""

    source: str
    sha256: str
    encoder_sha256: str


class CacheContent(Section):
    """What a cache holds: two encodings that agree in it write the same files."""

    format: Literal[1] = 1
    source: SourceRecord
    vae: AutoencoderRecord
    image: Shape
    """(C, H, W) of the pixels."""
    latent: Shape
    """(C, h, w) of a state."""
    scale: float
    shift: float
    dtype: Literal["float16"] = "float16"
    count: Count
    """The number N of rows, with those left out."""
    classes: tuple[str, ...]
    labels_sha256: str
    """Of the source's labels, with those of images left out, as int64."""

    @property
    def moments(self) -> tuple[int, ...]:
        """The shape of moments.npy."""
        channels, height, width = self.latent
        return self.count, 2, 2 * channels, height, width


class SkippedImage(Section):
    """An image that could not be read: its number in the source, and why, with its file's name."""

    number: int
    reason: str


class CacheFile(Section):
    """A file's size and hash."""

    bytes: int
    sha256: str


class CacheIndex(CacheContent):
    """What `index.json` says."""

    left_out: tuple[SkippedImage, ...]
    files: dict[str, CacheFile]
    images: str = ""
    """The fingerprint of the images (`fingerprint.py`); none in caches of earlier versions, or if they have none."""


def read_index(folder: Path) -> CacheIndex:
    """Return what a cache says of itself, after the sizes of its files have been compared with it.

    Raises:
        UserError: there is no cache, it is not finished, or a file is missing or of another size.
    """
    try:
        index = CacheIndex.model_validate_json(read_regular(folder / INDEX))
    except FileNotFoundError:
        if (folder / PROGRESS).is_dir():
            raise UserError(f"the latents in {folder} are not finished: the same `sitkit encode` goes on") from None
        raise UserError(f"there are no latents in {folder}: `sitkit encode SOURCE --out {folder}` makes them") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / INDEX} cannot be read: {getattr(error, 'strerror', error)}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise UserError(f"{folder / INDEX} is no index of latents ({reason}); {_anew(folder)}") from error
    for name in (MOMENTS, LABELS):
        if name not in index.files:
            raise UserError(f"{folder / INDEX} does not tell of {name}; {_anew(folder)}")
        try:
            size = (folder / name).stat().st_size
        except OSError as error:
            raise UserError(f"{folder}: {name} cannot be read ({error.strerror}); {_anew(folder)}") from error
        if size != index.files[name].bytes:
            raise UserError(f"{folder}: {name} has {size} bytes instead of {index.files[name].bytes}; {_anew(folder)}")
    return index


def check_sha256(
    folder: Path, index: CacheIndex, name: str, advance: Callable[[int], None] = lambda count: None
) -> None:
    """Raise a problem unless a file has the sha256 that the index says; `advance` is told of the bytes read."""
    if sha256(folder / name, advance) != index.files[name].sha256:
        raise UserError(f"{folder}: {name} is damaged, its sha256 is not that of {INDEX}; {_anew(folder)}")


def map_array(folder: Path, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """Return the array in a file, mapped into memory and not read.

    Raises:
        UserError: it is no array, or of another shape or type.
    """
    try:
        found = map_npy(folder / name)
    except (OSError, ArrayError) as error:
        raise UserError(f"{folder}: {name} is no array ({error}); {_anew(folder)}") from error
    if found.shape != shape or found.dtype != dtype:
        raise UserError(
            f"{folder}: {name} is {found.dtype} {found.shape} instead of {np.dtype(dtype)} {shape}; {_anew(folder)}"
        )
    return np.asarray(found)


def _anew(folder: Path) -> str:
    return f"copy it again from where it was whole, or remove {folder} and encode anew"
