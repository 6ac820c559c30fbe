"""Pieces of pages of pictures: an image with boxes at the width of a column, and the colors of the classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .boxes import Drawable, draw_boxes
from .fonts import text_length, write
from .style import INK, PAPER, class_color, class_name

__all__ = ["legend_of", "tile_of"]


def tile_of(image: np.ndarray, found: Drawable, names: Sequence[str], width: int) -> Image.Image:
    """The image at the width of a tile, then boxes on it, so that all tiles have strokes and text of one size."""
    scale = min(width / image.shape[1], 1.6 * width / image.shape[0])  # a tall one fits its height
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    resized = Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.LANCZOS)
    factor = np.array([size[0] / image.shape[1], size[1] / image.shape[0]] * 2)
    even = 0.9 * width / math.sqrt(size[0] * size[1])  # undoes the growth with the image, for tiles of all shapes
    drawn = draw_boxes(np.asarray(resized), found.boxes * factor, found.classes, found.scores, names, size=even)
    return Image.fromarray(drawn)


def legend_of(present: Sequence[int], names: Sequence[str], font: ImageFont.FreeTypeFont, width: int) -> Image.Image:
    """Colored dots and names of the classes in the picture, in as many lines as it takes."""
    line, x, y = 26, 0.0, 0
    places = []
    for label in present:
        text = class_name(label, names)
        length = 20 + text_length(text, font) + 24
        if x + length > width and x > 0:
            x, y = 0.0, y + line
        places.append((x, y, text, class_color(label)))
        x += length
    page = Image.new("RGB", (width, y + line), PAPER)
    pen = ImageDraw.Draw(page)
    for x, y, text, color in places:
        pen.rounded_rectangle((x, y + 6, x + 13, y + 19), 3, fill=color)
        write(pen, (x + 20, y + 12.5), text, font, INK, "lm")
    return page
