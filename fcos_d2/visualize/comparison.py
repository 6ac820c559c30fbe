"""Ground truth beside detections, for several images on a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..errors import FcosError
from .boxes import Drawable
from .fonts import legible, load_font, write
from .style import EDGE, FAINT, INK, PAPER, save
from .tiles import legend_of, tile_of

__all__ = ["draw_comparison"]

_GAP, _MARGIN, _BETWEEN = 6, 28, 30  # pixels: between pictures of a pair, around the page, between pairs


def draw_comparison(
    rows: Iterable[tuple[np.ndarray, Any, Any]],
    names: Sequence[str],
    path: str | Path,
    title: str = "Ground truth and detections",
    min_score: float = 0.5,
    tile: int = 380,
) -> Path:
    """Write a PNG with ground truth beside detections, for several images.

    Args:
        rows: (image, ground truth, detections) each; image (H, W, 3) uint8 RGB; the boxes as a `Drawable`, a tuple of
            its fields, or Detectron2 `Instances` with `gt_*` or `pred_*` fields. At least one row.
        names: names of the classes.
        path: the PNG; its folder is made.
        title: heading of the picture.
        min_score: detections below are not drawn.
        tile: width of each image in the picture, pixels.
    Returns:
        The path.
    """
    pairs = [(np.asarray(image), Drawable.of(truth), Drawable.of(found)) for image, truth, found in rows]
    if not pairs:
        raise FcosError("There is no image to draw a comparison of.")
    columns = 2 if len(pairs) > 1 else 1
    rendered: list[list[Image.Image]] = []
    present: set[int] = set()
    for image, *sides in pairs:
        rendered.append([])
        for side in sides:
            boxes, classes, scores = side.arrays()
            keep = np.isfinite(boxes).all(1) & (scores >= min_score if scores is not None else True)
            present.update(classes[keep].tolist())
            kept = Drawable(boxes[keep], classes[keep], None if scores is None else scores[keep])
            rendered[-1].append(tile_of(image, kept, names, tile))
    lines = [rendered[first : first + columns] for first in range(0, len(rendered), columns)]
    page_width = 2 * _MARGIN + columns * (2 * tile + _GAP) + (columns - 1) * _BETWEEN
    legend = legend_of(sorted(present), names, load_font(15), page_width - 2 * _MARGIN)
    scored = any(found.scores is not None for _, _, found in pairs)
    captions = ("ground truth", f"detections (score ≥ {min_score:g})" if scored else "detections")
    page = _page(lines, legend, title, captions, tile, page_width)
    return save(path, lambda file: page.save(file, format="PNG"))


def _page(
    lines: list[list[list[Image.Image]]],
    legend: Image.Image,
    title: str,
    captions: Sequence[str],
    tile: int,
    width: int,
) -> Image.Image:
    """Heading, captions, lines of pairs of pictures, legend."""
    heights = [max(side.height for pair in line for side in pair) for line in lines]
    tiles = sum(heights) + _GAP * 2 * (len(lines) - 1)
    page = Image.new("RGB", (width, _MARGIN + 44 + 30 + tiles + 16 + legend.height + _MARGIN - 8), PAPER)
    pen = ImageDraw.Draw(page)
    write(pen, (_MARGIN, _MARGIN - 6), legible(title), load_font(26, bold=True), INK)
    top = _MARGIN + 44

    def left(pair: int, side: int) -> int:
        return _MARGIN + pair * (2 * tile + _GAP + _BETWEEN) + side * (tile + _GAP)

    for pair in range(len(lines[0])):
        for side, caption in enumerate(captions):
            pen.text((left(pair, side), top), caption, fill=FAINT, font=load_font(16, bold=True))
    top += 30
    for line, height in zip(lines, heights, strict=True):
        for pair, pictures in enumerate(line):
            for side, picture in enumerate(pictures):
                x, y = left(pair, side), top + (height - picture.height) // 2
                page.paste(picture, (x, y))
                pen.rectangle((x, y, x + picture.width - 1, y + picture.height - 1), outline=EDGE)
        top += height + _GAP * 2
    page.paste(legend, (_MARGIN, top + 4))
    return page
