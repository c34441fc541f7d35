"""The format of a latent cache, a folder of four entries.

- `moments.npy`: (N, 2, 2C, h, w) float16: for each image, and for its horizontal flip, the means and then the standard
  deviations of its latents, in the scale of the autoencoder.
- `labels.npy`: (N,) int64, the class of each image; -1 for a skipped image, whose moments are NaN.
- `index.json`: the index, a `CacheIndex`. It is written last: a cache with an index is complete.
- `.progress/`: the state of an unfinished encoding.

Standard deviations are stored instead of log variances because they lose less in float16: their relative error is 2^-11
down to 6e-5, and their absolute error 3e-8 below, less than the rounding of the means. A log variance near -20 is
rounded to 2^-7, and its standard deviation thereby to 0.4 per cent. The largest standard deviation, e^10, fits.
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
    """Where the images come from: a description for messages, and a fingerprint."""

    description: str
    fingerprint: str


class AutoencoderRecord(Section):
    """The autoencoder: its name, and the sha256 of all its weights and of those of the encoder."""

    source: str
    sha256: str
    encoder_sha256: str


class CacheContent(Section):
    """The content of a cache. Two encodings with equal content write equal files."""

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
    """The number N of rows, including those of skipped images."""
    classes: tuple[str, ...]
    labels_sha256: str
    """The sha256 of the labels of all images, including skipped ones, as int64."""

    @property
    def moments(self) -> tuple[int, ...]:
        """The shape of moments.npy."""
        channels, height, width = self.latent
        return self.count, 2, 2 * channels, height, width


class SkippedImage(Section):
    """An image that could not be read: its index in the source, and the reason, with the name of its file."""

    number: int
    reason: str


class CacheFile(Section):
    """The size and sha256 of a file."""

    bytes: int
    sha256: str


class CacheIndex(CacheContent):
    """The index of a complete cache, stored as `index.json`."""

    left_out: tuple[SkippedImage, ...]
    """The skipped images."""
    files: dict[str, CacheFile]
    images: str = ""
    """The fingerprint of the images (`fingerprint.py`); empty if they have none, and in caches of earlier versions."""


def read_index(folder: Path) -> CacheIndex:
    """Return the index of a cache, after comparing the sizes of its files with it.

    Raises:
        UserError: there is no cache, it is not finished, or a file is missing or of another size.
    """
    try:
        index = CacheIndex.model_validate_json(read_regular(folder / INDEX))
    except FileNotFoundError:
        if (folder / PROGRESS).is_dir():
            raise UserError(
                f"the latents in {folder} are not finished: run the same `sitkit encode` to resume"
            ) from None
        raise UserError(
            f"there are no latents in {folder}: `sitkit encode SOURCE --out {folder}` creates them"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / INDEX} cannot be read: {getattr(error, 'strerror', error)}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise UserError(f"{folder / INDEX} is not an index of latents ({reason}); {_remedy(folder)}") from error
    for name in (MOMENTS, LABELS):
        if name not in index.files:
            raise UserError(f"{folder / INDEX} does not list {name}; {_remedy(folder)}")
        try:
            size = (folder / name).stat().st_size
        except OSError as error:
            raise UserError(f"{folder}: {name} cannot be read ({error.strerror}); {_remedy(folder)}") from error
        if size != index.files[name].bytes:
            raise UserError(
                f"{folder}: {name} has {size} bytes instead of {index.files[name].bytes}; {_remedy(folder)}"
            )
    return index


def check_sha256(
    folder: Path, index: CacheIndex, name: str, advance: Callable[[int], None] = lambda count: None
) -> None:
    """Raise UserError unless a file has the sha256 of the index; `advance` is called with the number of bytes read."""
    if sha256(folder / name, advance) != index.files[name].sha256:
        raise UserError(f"{folder}: {name} is damaged: its sha256 is not that of {INDEX}; {_remedy(folder)}")


def map_array(folder: Path, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """Return the array in a file, mapped into memory.

    Raises:
        UserError: the file holds no array, or one of another shape or dtype.
    """
    try:
        found = map_npy(folder / name)
    except (OSError, ArrayError) as error:
        raise UserError(f"{folder}: {name} is not an array ({error}); {_remedy(folder)}") from error
    if found.shape != shape or found.dtype != dtype:
        raise UserError(
            f"{folder}: {name} is {found.dtype} {found.shape} instead of {np.dtype(dtype)} {shape}; {_remedy(folder)}"
        )
    return np.asarray(found)


def _remedy(folder: Path) -> str:
    return f"copy the folder again from an intact one, or remove {folder} and encode again"
