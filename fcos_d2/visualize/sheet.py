"""A contact sheet: many images with their boxes on a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..errors import FcosError
from .boxes import Drawable
from .fonts import legible, load_font, text_length, write
from .style import EDGE, FAINT, INK, PAPER
from .tiles import legend_of, tile_of

__all__ = ["LARGEST_SHEET", "draw_sheet"]

LARGEST_SHEET = 100_000_000  # pixels of all tiles together: 300 MB
_MARGIN, _GAP, _CAPTION = 24, 12, 24  # pixels: around the page, between tiles, below each


def draw_sheet(
    rows: Iterable[tuple[np.ndarray, Drawable, str]],
    names: Sequence[str],
    title: str,
    columns: int = 4,
    tile: int = 360,
) -> np.ndarray:
    """Draw images with boxes side by side; each is held only until it is drawn small.

    Args:
        rows: (image, boxes, caption) each; image (H, W, 3) uint8 RGB, boxes in its pixels.
        names: names of the classes.
        title: heading of the page.
        columns: images side by side.
        tile: width of each image in the page, pixels.
    Returns:
        (H, W, 3) uint8 RGB.
    Raises:
        FcosError: there is no image, or the page would be too large.
    """
    tiles: list[tuple[Image.Image, str]] = []
    present: set[int] = set()
    pixels = 0
    for image, found, caption in rows:
        found = Drawable(*found.arrays())
        present.update(found.classes.tolist())
        tiles.append((tile_of(image, found, names, tile), caption))
        pixels += tiles[-1][0].width * tiles[-1][0].height
        if pixels > LARGEST_SHEET:
            raise FcosError(
                f"A sheet of more than {LARGEST_SHEET:,} pixels is too large: show fewer images than {len(tiles)}, or "
                f"smaller ones than {tile} pixels."
            )
    if not tiles:
        raise FcosError("There is no image to draw a sheet of.")
    columns = min(columns, len(tiles))
    lines = [tiles[first : first + columns] for first in range(0, len(tiles), columns)]
    width = 2 * _MARGIN + columns * tile + (columns - 1) * _GAP
    legend = legend_of(sorted(present), names, load_font(15), width - 2 * _MARGIN)
    heights = [max(picture.height for picture, _ in line) + _CAPTION + _GAP for line in lines]
    page = Image.new("RGB", (width, _MARGIN + 44 + sum(heights) + legend.height + _MARGIN), PAPER)
    pen = ImageDraw.Draw(page)
    write(pen, (_MARGIN, _MARGIN - 6), _cut(title, 24, width - 2 * _MARGIN, bold=True), load_font(24, bold=True), INK)
    top = _MARGIN + 44
    for line, height in zip(lines, heights):
        for column, (picture, caption) in enumerate(line):
            left, bottom = _MARGIN + column * (tile + _GAP), top + height - _CAPTION - _GAP
            x, y = left + (tile - picture.width) // 2, bottom - picture.height
            page.paste(picture, (x, y))
            pen.rectangle((x, y, x + picture.width - 1, y + picture.height - 1), outline=EDGE)
            write(pen, (left, bottom + 3), _cut(caption, 14, tile), load_font(14), FAINT)
        top += height
    page.paste(legend, (_MARGIN, top))
    return np.asarray(page)


def _cut(text: str, size: int, width: int, bold: bool = False) -> str:
    """The text without its middle where it is too long: names of images differ at their ends."""
    text, font = legible(text), load_font(size, bold)
    if text_length(text, font) <= width:
        return text
    kept = len(text)
    while kept > 2 and text_length(_without_middle(text, kept), font) > width:
        kept -= 1
    return _without_middle(text, kept)


def _without_middle(text: str, kept: int) -> str:
    return f"{text[: kept // 3]}…{text[len(text) - kept + kept // 3 :]}"
