"""From the bytes of an image file to square pixels, as ADM crops them.

The crop is that of guided-diffusion (Dhariwal and Nichol, arXiv 2105.05233), by which published results on ImageNet
are measured. An image smaller than `size` is enlarged.
"""

import io
import math
from functools import cache

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..support.errors import UserError

NOT_READ = ("EPS", "WMF", "IPTC", "BUFR", "GRIB", "HDF5", "MPEG")
"""Formats that Pillow knows and does not decode itself: it starts other programs for them, or has no decoder."""
MOST_PIXELS = 1 << 24
"""Pixels of an image enlarged whole, at most; of a longer one, only what the crop needs is made."""
ORIENTATION = 0x0112
"""The Exif tag that says how a camera was held."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImageError(UserError):
    """An image file that is damaged, or of another format."""


@cache
def image_suffixes() -> tuple[str, ...]:
    """Return the endings of the names of image files, in lower case: those of the formats that Pillow decodes."""
    known = {ending: name for ending, name in Image.registered_extensions().items() if name not in NOT_READ}
    return tuple(ending for ending, name in known.items() if name in Image.OPEN or name == "MPO")  # MPO opens as JPEG


@cache
def _formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are read."""
    endings = Image.registered_extensions()
    return tuple(dict.fromkeys(endings[ending] for ending in image_suffixes() if endings[ending] in Image.OPEN))


def decode_square(encoded: bytes, size: int, name: str) -> Tensor:
    """Return the central square of an encoded image, (3, size, size) uint8, RGB.

    Args:
        encoded: what an image file holds; of several pictures in it, the first is taken.
        size: the side of the square, in pixels.
        name: what to call the image in errors.

    Raises:
        UnreadableImageError: the bytes are no image, or a damaged one.
    """
    try:
        with _open(encoded) as image:
            pixels = np.array(centre_crop(to_rgb(apply_orientation(image)), size))
    except Exception as error:  # Pillow raises what its parsers meet: OSError, SyntaxError, struct.error, and more
        raise UnreadableImageError(f"{name} cannot be read as an image: {_why(error)}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def decode_whole(encoded: bytes, name: str) -> Tensor:
    """Return an encoded image as it is, (3, H, W) uint8, RGB; see `square`.

    Raises:
        UnreadableImageError: the bytes are no image, or a damaged one.
    """
    try:
        with _open(encoded) as image:
            pixels = np.array(to_rgb(apply_orientation(image)))
    except Exception as error:
        raise UnreadableImageError(f"{name} cannot be read as an image: {_why(error)}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_size(encoded: bytes, name: str) -> tuple[int, int]:
    """Return the width and height of an encoded image, as they are stored.

    Raises:
        UnreadableImageError: the bytes are no image.
    """
    try:
        with _open(encoded) as image:
            return image.size
    except Exception as error:
        raise UnreadableImageError(f"{name} cannot be read as an image: {_why(error)}") from error


def _open(encoded: bytes) -> Image.Image:
    """Return an image that is not decoded yet, with its transparent colour in the depth that Pillow decodes to."""
    image = Image.open(io.BytesIO(encoded), formats=_formats())
    tiles, clear = getattr(image, "tile", []), image.info.get("transparency")
    stored = tiles[0].args if image.format == "PNG" and tiles else ""
    if stored in ("L;2", "L;4") and isinstance(clear, int) and clear < (levels := 1 << int(stored[2:])):
        image.info["transparency"] = clear * 255 // (levels - 1)
    elif stored == "RGB;16B" and isinstance(clear, tuple):
        image.info["transparency"] = tuple(channel >> 8 for channel in clear)
    return image


def _why(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is of no format that Pillow decodes"
    return " ".join(str(error).split()) or type(error).__name__


def apply_orientation(image: Image.Image) -> Image.Image:
    """Return an image turned as its Exif orientation asks; Exif that is damaged asks for nothing."""
    image.load()  # PNG keeps Exif behind the pixels
    try:
        turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # the pixels are good all the same
        turn = None
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image as 8-bit RGB.

    Grey has three equal channels. What is transparent lies on white. Of 16 bits the high byte stays, in grey as Pillow
    does it in colour, where a transparent colour is compared by high bytes, too. CMYK is converted by formula, without
    colour profiles.

    Raises:
        ValueError: pixels are floats or integers of 32 bits, of which no one says what is white.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # `convert` would clip at 255
        grey = np.asarray(image).astype(np.uint32)
        shades = (grey >> 8).astype(np.uint8)
        if (clear := image.info.get("transparency")) is not None:
            shades[grey == clear] = 255
        image = Image.fromarray(shades)
    if image.mode in ("I", "F"):
        kind = {"I": "integers", "F": "floats"}[image.mode]
        raise ValueError(f"its pixels are 32-bit {kind}, which do not say what is white: store 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Return the central square of an image, (size, size).

    The image is halved by averaging boxes while its shorter side is at least twice `size`; a bicubic step brings that
    side to `size`; the longer side is cut on both ends, an odd pixel at its far one. Where that side would be very
    long, only the square is made: the same, but for rounding between the two directions.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    left, top = (width - size) // 2, (height - size) // 2
    if width * height > MOST_PIXELS:
        return _square_of(image, (width, height), (left, top), size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + size, top + size))


def _square_of(image: Image.Image, sides: tuple[int, int], corner: tuple[int, int], size: int) -> Image.Image:
    """Return the square at a corner of an image resized to `sides`, of which no more is made."""
    box: list[float] = []
    cut: list[int] = []
    for place, (own, wanted) in enumerate(zip(image.size, sides, strict=True)):
        start, stop = corner[place] * own / wanted, (corner[place] + size) * own / wanted
        margin = math.ceil(2 * max(1, own / wanted)) + 1  # what a bicubic step looks at beyond
        cut += [max(0, math.floor(start) - margin), min(own, math.ceil(stop) + margin)]
        box += [start - cut[-2], stop - cut[-2]]
    part = image.crop((cut[0], cut[2], cut[1], cut[3]))
    rows = part.resize((size, part.height), Image.Resampling.BICUBIC, (box[0], 0, box[1], part.height))
    return rows.resize((size, size), Image.Resampling.BICUBIC, (0, box[2], size, box[3]))
