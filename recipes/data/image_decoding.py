"""Decodes image files to pixels, with the centre crop of ADM.

The crop is that of guided-diffusion (Dhariwal and Nichol, arXiv 2105.05233), on which published results on ImageNet
are based. An image smaller than `size` is enlarged.
"""

import io
import math
from functools import cache

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..support.errors import UserError

UNSUPPORTED_FORMATS = ("EPS", "WMF", "IPTC", "BUFR", "GRIB", "HDF5", "MPEG")
"""Formats that Pillow identifies but does not decode itself: it starts other programs for them, or has no decoder."""
MAX_RESIZED_PIXELS = 1 << 24
"""The largest image that is resized as a whole; of a larger one, only the square is computed."""
ORIENTATION = 0x0112
"""The Exif tag of the camera's orientation."""
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImageError(UserError):
    """An image file is damaged or of an unsupported format."""


@cache
def image_suffixes() -> tuple[str, ...]:
    """Return the file suffixes of the formats that Pillow decodes, in lower case."""
    known = {suffix: name for suffix, name in Image.registered_extensions().items() if name not in UNSUPPORTED_FORMATS}
    return tuple(suffix for suffix, name in known.items() if name in Image.OPEN or name == "MPO")  # MPO opens as JPEG


@cache
def _formats() -> tuple[str, ...]:
    """Return Pillow's names of the supported formats."""
    formats = Image.registered_extensions()
    return tuple(dict.fromkeys(formats[suffix] for suffix in image_suffixes() if formats[suffix] in Image.OPEN))


def decode_square(encoded: bytes, size: int, name: str) -> Tensor:
    """Decode the centre crop of an image, (3, size, size) uint8, RGB.

    Args:
        encoded: the content of an image file; of several frames, the first is decoded.
        size: the side of the square, in pixels.
        name: the name of the image in error messages.

    Raises:
        UnreadableImageError: the bytes are not an image, or are damaged.
    """
    try:
        with _open(encoded) as image:
            pixels = np.array(centre_crop(to_rgb(apply_orientation(image)), size))
    except Exception as error:  # Pillow's parsers raise OSError, SyntaxError, struct.error, and more
        raise UnreadableImageError(f"{name} cannot be read as an image: {_reason(error)}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def decode_whole(encoded: bytes, name: str) -> Tensor:
    """Decode an image without cropping, (3, H, W) uint8, RGB; see `decode_square`.

    Raises:
        UnreadableImageError: the bytes are not an image, or are damaged.
    """
    try:
        with _open(encoded) as image:
            pixels = np.array(to_rgb(apply_orientation(image)))
    except Exception as error:
        raise UnreadableImageError(f"{name} cannot be read as an image: {_reason(error)}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_size(encoded: bytes, name: str) -> tuple[int, int]:
    """Return the width and height of an encoded image as stored, before its Exif orientation is applied.

    Raises:
        UnreadableImageError: the bytes are not an image.
    """
    try:
        with _open(encoded) as image:
            return image.size
    except Exception as error:
        raise UnreadableImageError(f"{name} cannot be read as an image: {_reason(error)}") from error


def _open(encoded: bytes) -> Image.Image:
    """Open an image without decoding it, and convert its transparent colour to the bit depth of the decoded pixels."""
    image = Image.open(io.BytesIO(encoded), formats=_formats())
    tiles, clear = getattr(image, "tile", []), image.info.get("transparency")
    stored = tiles[0].args if image.format == "PNG" and tiles else ""
    if stored in ("L;2", "L;4") and isinstance(clear, int) and clear < (levels := 1 << int(stored[2:])):
        image.info["transparency"] = clear * 255 // (levels - 1)
    elif stored == "RGB;16B" and isinstance(clear, tuple):
        image.info["transparency"] = tuple(channel >> 8 for channel in clear)
    return image


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "Pillow cannot decode its format"
    return " ".join(str(error).split()) or type(error).__name__


def apply_orientation(image: Image.Image) -> Image.Image:
    """Apply the Exif orientation of an image; damaged Exif data are ignored."""
    image.load()  # PNG stores Exif data after the pixels
    try:
        transposition = TRANSPOSITIONS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # the pixels are intact
        transposition = None
    return image if transposition is None else image.transpose(transposition)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to 8-bit RGB.

    Grey becomes three equal channels. Transparent pixels are composited on white. Pixels of 16 bits are reduced to
    their high byte, in grey as Pillow does it in colour, where the transparent colour is compared by high bytes as
    well. CMYK is converted by formula, without colour profiles.

    Raises:
        ValueError: pixels are 32-bit floats or integers, whose value of white is unknown.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # `convert` would clip at 255
        grey = np.asarray(image).astype(np.uint32)
        shades = (grey >> 8).astype(np.uint8)
        if (clear := image.info.get("transparency")) is not None:
            shades[grey == clear] = 255
        image = Image.fromarray(shades)
    if image.mode in ("I", "F"):
        kind = {"I": "integers", "F": "floats"}[image.mode]
        raise ValueError(f"its pixels are 32-bit {kind}, whose value of white is unknown: store 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Return the centre crop of an image, (size, size).

    The image is halved by box filters while its shorter side is at least twice `size`, and resized by a bicubic filter
    until that side is `size`. The longer side is then cropped at both ends, an odd pixel at the far end. If the resized
    image would be very large, only the square is computed, equal up to rounding between the two directions.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    left, top = (width - size) // 2, (height - size) // 2
    if width * height > MAX_RESIZED_PIXELS:
        return _resize_square(image, (width, height), (left, top), size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + size, top + size))


def _resize_square(image: Image.Image, sides: tuple[int, int], corner: tuple[int, int], size: int) -> Image.Image:
    """Return a square of the image resized to `sides`, without resizing the rest."""
    box: list[float] = []
    cut: list[int] = []
    for axis, (side, resized) in enumerate(zip(image.size, sides, strict=True)):
        start, stop = corner[axis] * side / resized, (corner[axis] + size) * side / resized
        margin = math.ceil(2 * max(1, side / resized)) + 1  # the support of the bicubic filter
        cut += [max(0, math.floor(start) - margin), min(side, math.ceil(stop) + margin)]
        box += [start - cut[-2], stop - cut[-2]]
    part = image.crop((cut[0], cut[2], cut[1], cut[3]))
    rows = part.resize((size, part.height), Image.Resampling.BICUBIC, (box[0], 0, box[1], part.height))
    return rows.resize((size, size), Image.Resampling.BICUBIC, (0, box[2], size, box[3]))
