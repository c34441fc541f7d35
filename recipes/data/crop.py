"""From the bytes of an image file to square pixels, as ADM crops them.

The crop is that of guided-diffusion (Dhariwal and Nichol, arXiv 2105.05233), by which published results on ImageNet
are measured. An image smaller than `size` is enlarged.
"""

import io

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..problem import Problem

FORMATS = ("PNG", "JPEG", "WEBP")
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


class Unreadable(Problem):
    """An image file that is damaged, or of another format."""


def square(encoded: bytes, size: int, name: str) -> Tensor:
    """Return the central square of an encoded image, (3, size, size) uint8, RGB.

    Args:
        encoded: what a PNG, JPEG or WebP file holds.
        size: the side of the square, in pixels.
        name: what to call the image in errors.

    Raises:
        Unreadable: the bytes are no such image, or a damaged one.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            pixels = np.array(centre(to_rgb(upright(image)), size))
    except Exception as error:  # Pillow raises what its parsers meet: OSError, SyntaxError, struct.error, and more
        why = f"it is no {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else error
        raise Unreadable(f"{name} cannot be read as an image: {why}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def upright(image: Image.Image) -> Image.Image:
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
    does it in colour. CMYK is converted by formula, without colour profiles.
    """
    if image.mode.startswith("I"):  # 16-bit grey, which `convert` would clip at 255
        grey = np.asarray(image).astype(np.uint32) >> 8
        image = Image.fromarray(grey.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def centre(image: Image.Image, size: int) -> Image.Image:
    """Return the central square of an image, (size, size).

    The image is halved by averaging boxes while its shorter side is at least twice `size`; a bicubic step brings that
    side to `size`; the longer side is cut on both ends, an odd pixel at its far one.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
