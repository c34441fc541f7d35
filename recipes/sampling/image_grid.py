"""Image grids, with class names as captions."""

import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..support.errors import UserError
from ..support.progress import print_once

SIDE = 48
"""Images are enlarged by an integer factor to about this many pixels."""
GAP = 4
MAX_COLUMNS = 24
DEJAVU = f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"
INK, PAPER = (40, 40, 40), (255, 255, 255)


def tile(pixels: Tensor, columns: int, captions: Sequence[str] = (), side: int = SIDE) -> Image.Image:
    """Return a grid of images (N, C, H, W) uint8, C = 1 or 3, row by row, with captions above the columns."""
    factor = max(1, round(side / pixels.shape[-1]))
    large = pixels.repeat_interleave(factor, -1).repeat_interleave(factor, -2).expand(-1, 3, -1, -1)
    height, width = large.shape[-2:]
    rows = -(-len(large) // columns)
    head = 22 if captions else 0
    size = (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP + head)
    canvas = Image.new("RGB", size, PAPER)
    for number, image in enumerate(large):
        row, column = divmod(number, columns)
        place = (GAP + column * (width + GAP), GAP + head + row * (height + GAP))
        canvas.paste(Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()), place)
    draw = ImageDraw.Draw(canvas)
    for column, caption in enumerate(captions):
        middle = GAP + column * (width + GAP) + width // 2
        font = _font_for(caption, width + GAP)
        draw.text((middle, head // 2 + 2), caption, INK, font, anchor="mm")
    return canvas


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return Matplotlib's DejaVu Sans in a size in pixels. It has Latin, Greek, Cyrillic and more."""
    return ImageFont.truetype(DEJAVU, size)


def _font_for(caption: str, width: int) -> ImageFont.FreeTypeFont:
    """Return the largest font of 6 to 14 pixels in which a caption fits a column, or the smallest one."""
    fonts = (_font(size) for size in range(14, 5, -1))
    return next((font for font in fonts if font.getlength(caption) <= width), _font(6))


@cache
def _glyphs() -> FT2Font:
    return FT2Font(DEJAVU)


def caption_of(label: int, classes: Sequence[str]) -> str:
    """Return the name of a class as a caption, or # and its label if the font lacks a character of the name."""
    name = unicodedata.normalize("NFC", " ".join(classes[label].split()))
    if all(_glyphs().get_char_index(ord(character)) for character in name):
        return name
    print_once(f"captions show #{label} for the class {name!r}, which has a character that is not in the font")
    return f"#{label}"


def label_grid(pixels: Tensor, labels: Tensor | None, classes: Sequence[str]) -> Image.Image:
    """Return a grid of images with a captioned column for every class that occurs, or a square grid if too many do."""
    columns = max(1, round(len(pixels) ** 0.5))
    present = [] if labels is None else torch.unique(labels).tolist()
    if not 0 < len(present) <= MAX_COLUMNS:
        return tile(pixels, columns)
    captions = [caption_of(label, classes) for label in present]
    if len(present) == 1:
        return tile(pixels, columns, captions * min(columns, len(pixels)))
    by_class = [pixels[labels == label] for label in present]
    rows = max(len(images) for images in by_class)
    blank = torch.full_like(pixels[:1], 255)
    filled = [torch.cat([images, blank.expand(rows - len(images), -1, -1, -1)]) for images in by_class]
    return tile(torch.stack(filled, dim=1).flatten(0, 1), len(present), captions)


def save_image(image: Image.Image, file: Path) -> None:
    """Write an image as PNG.

    Raises:
        UserError: the file cannot be written.
    """
    draft = file.with_name(f".{file.name}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(draft, format="png", optimize=True)
        draft.replace(file)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror or error}") from error
