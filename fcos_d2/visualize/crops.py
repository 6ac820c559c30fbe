"""Parts of images in a sheet, each with a box and a line of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .boxes import Drawable, draw_boxes
from .fonts import legible, load_font, text_length, write
from .style import EDGE, FAINT, INK, PAPER, save

__all__ = ["Crop", "draw_crops", "tile_around"]

_TILE, _GAP, _MARGIN, _COLUMNS = 236, 14, 28, 5  # pixels; the tiles of a line
_AROUND, _LEAST = 1.9, 48  # sides of a part over those of the box, and pixels that it has at least


@dataclass(frozen=True)
class Crop:
    """A box of an image, what else is drawn there, and what is said of it in lines."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    box: np.ndarray  # (4,) xyxy pixels: what the part is about
    drawn: Drawable
    lines: Sequence[str]


def draw_crops(
    sections: Sequence[tuple[str, Sequence[Crop]]], names: Sequence[str], path: str | Path, title: str
) -> Path:
    """Write a JPEG with sections of crops.

    Args:
        sections: heading and crops each; one without crops says that there are none.
        names: of the classes.
        path: the JPEG; its folder is made.
        title: heading of the picture.
    """
    lines = max([len(crop.lines) for _, crops in sections for crop in crops] or [0])
    height = _TILE + 20 * lines + _GAP
    rows = [max(1, -(-len(crops) // _COLUMNS)) if crops else 0 for _, crops in sections]
    width = 2 * _MARGIN + _COLUMNS * _TILE + (_COLUMNS - 1) * _GAP
    page = Image.new(
        "RGB", (width, _MARGIN + 40 + sum(40 + (row * height or 30) for row in rows) + _MARGIN // 2), PAPER
    )
    pen, top = ImageDraw.Draw(page), _MARGIN + 40
    write(pen, (_MARGIN, _MARGIN - 6), legible(title), load_font(26, bold=True), INK)
    for (heading, crops), count in zip(sections, rows, strict=True):
        pen.text((_MARGIN, top + 8), heading, fill=FAINT, font=load_font(16, bold=True))
        top += 40
        if not crops:
            pen.text((_MARGIN, top), "none", fill=FAINT, font=load_font(15))
        for i, crop in enumerate(crops):
            x, y = _MARGIN + i % _COLUMNS * (_TILE + _GAP), top + i // _COLUMNS * height
            page.paste(tile_around(crop, names), (x, y))
            pen.rectangle((x, y, x + _TILE - 1, y + _TILE - 1), outline=EDGE)
            for j, line in enumerate(crop.lines):
                write(pen, (x, y + _TILE + 4 + 20 * j), _shortened(line), load_font(13), INK if j == 0 else FAINT)
        top += count * height or 30
    return save(path, lambda file: page.save(file, format="JPEG", quality=90))


def tile_around(crop: Crop, names: Sequence[str]) -> Image.Image:
    """The square around a box, as far as the image goes, with what is drawn there."""
    height, width = crop.image.shape[:2]
    center, sides = (crop.box[:2] + crop.box[2:]) / 2, crop.box[2:] - crop.box[:2]
    side = max(float(sides.max()) * _AROUND, _LEAST)
    side = min(side, float(max(height, width)))
    low = [min(max(c - side / 2, 0.0), max(0.0, size - side)) for c, size in zip(center, (width, height))]
    corner = np.array(low).round().astype(int)
    end = np.minimum((corner + round(side)), (width, height))
    part = Image.fromarray(np.ascontiguousarray(crop.image[corner[1] : end[1], corner[0] : end[0]]))
    scale = _TILE / max(part.size)
    size = max(1, round(part.width * scale)), max(1, round(part.height * scale))
    part = part.resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS)
    page = Image.new("RGB", (_TILE, _TILE), EDGE)
    at = (_TILE - part.width) // 2, (_TILE - part.height) // 2
    page.paste(part, at)
    boxes, classes, scores = crop.drawn.arrays()
    boxes = (boxes - np.tile(corner, 2)) * scale + np.tile(at, 2)
    return Image.fromarray(draw_boxes(np.asarray(page), boxes, classes, scores, names, size=1.9))


def _shortened(line: str) -> str:
    """A line that is no longer than a tile; the middle goes."""
    text, font = legible(line), load_font(13)
    if text_length(text, font) <= _TILE:
        return text
    for kept in range(len(text) - 1, 1, -1):
        shorter = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        if text_length(shorter, font) <= _TILE:
            return shorter
    return "…"
