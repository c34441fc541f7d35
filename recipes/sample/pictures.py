"""Pictures of images: grids, with their classes written beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..problem import Problem

SIDE = 48
"""Images are enlarged by whole factors to about this many pixels."""
GAP = 4
MOST_COLUMNS = 24
INK, PAPER = (40, 40, 40), (255, 255, 255)


def tile(pixels: Tensor, columns: int, captions: Sequence[str] = (), side: int = SIDE) -> Image.Image:
    """Return images (N, C, H, W) uint8, C = 1 or 3, row by row; captions, if any, head the columns."""
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


def _font_for(caption: str, width: int) -> Any:
    """Return the largest font, of 6 to 14 pixels, in which a caption is no wider than a column, if there is one."""
    fonts = (ImageFont.load_default(size) for size in range(14, 5, -1))
    return next((font for font in fonts if font.getlength(caption) <= width), ImageFont.load_default(6))


def label_grid(pixels: Tensor, labels: Tensor | None, classes: Sequence[str]) -> Image.Image:
    """Return a grid of images with a column, and its caption, for every class that occurs; a square one if too many."""
    columns = max(1, round(len(pixels) ** 0.5))
    present = [] if labels is None else torch.unique(labels).tolist()
    if not 0 < len(present) <= MOST_COLUMNS:
        return tile(pixels, columns)
    if len(present) == 1:
        return tile(pixels, columns, [classes[present[0]]] * min(columns, len(pixels)))
    by_class = [pixels[labels == label] for label in present]
    rows = max(len(images) for images in by_class)
    blank = torch.full_like(pixels[:1], 255)
    filled = [torch.cat([images, blank.expand(rows - len(images), -1, -1, -1)]) for images in by_class]
    return tile(torch.stack(filled, dim=1).flatten(0, 1), len(present), [classes[label] for label in present])


def save_picture(picture: Image.Image, file: Path) -> None:
    """Write a picture as PNG.

    Raises:
        Problem: the file cannot be written.
    """
    draft = file.with_name(f".{file.name}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(draft, format="png", optimize=True)
        draft.replace(file)
    except OSError as error:
        raise Problem(f"{file} cannot be written: {error.strerror or error}") from error


def save_arrays(pixels: Tensor, labels: Tensor | None, file: Path) -> None:
    """Write images (N, C, H, W) uint8 as an npz: `arr_0` (N, H, W, 3) uint8, for ADM's evaluator, and `labels` (N,).

    Raises:
        Problem: the file cannot be written.
    """
    arrays: dict[str, Any] = {"arr_0": pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()}
    if labels is not None:
        arrays["labels"] = labels.numpy()
    draft = file.with_name(f".{file.name}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as stream:
            np.savez(stream, **arrays)
        draft.replace(file)
    except OSError as error:
        raise Problem(f"{file} cannot be written: {error.strerror or error}") from error
