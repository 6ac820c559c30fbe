"""Detections with the locations that they come from and the boxes that they suppressed, and missed objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .boxes import draw_boxes
from .fonts import load_font, text_length, write
from .style import class_color, class_name

__all__ = ["Absent", "Mark", "draw_explanation"]

_LEAST = 960  # pixels of the longer side of the picture; smaller images are enlarged
_DASH = 10  # pixels
_SIZE = 0.75  # of strokes and text, for there is much to see


@dataclass(frozen=True)
class Mark:
    """A detection: box (4,) xyxy and location (2,) in pixels of the image; what it suppressed; what is said of it."""

    box: Sequence[float]
    label: int
    score: float
    location: Sequence[float]
    suppressed: Sequence[Sequence[float]] = ()
    remark: str = ""


@dataclass(frozen=True)
class Absent:
    """An object that was missed, (4,) xyxy, and why."""

    box: Sequence[float]
    label: int
    cause: str


def draw_explanation(
    image: np.ndarray, marks: Sequence[Mark], absent: Sequence[Absent], names: Sequence[str]
) -> np.ndarray:
    """Draw on a copy of an image: suppressed boxes as thin lines, detections with labels, their locations as dots, and
    missed objects dashed, with the cause.

    Args:
        image: (H, W, 3) uint8 RGB.
        marks: what was detected.
        absent: what was missed.
        names: of the classes.
    Returns:
        (H', W', 3) uint8 RGB; a small image is enlarged.
    """
    scale = max(1.0, _LEAST / max(image.shape[:2]))
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    page = Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(page, "RGBA")
    for mark in marks:
        for box in mark.suppressed:
            pen.rectangle(_ordered(box, scale), outline=(*class_color(mark.label), 110))
    boxes = np.array([mark.box for mark in marks], np.float64).reshape(-1, 4) * scale
    drawn = draw_boxes(
        np.asarray(page), boxes, [mark.label for mark in marks], [mark.score for mark in marks], names, size=_SIZE,
        tags=[mark.remark for mark in marks],
    )  # fmt: skip
    page = Image.fromarray(drawn)
    pen = ImageDraw.Draw(page, "RGBA")
    radius = max(3.0, max(size) / 300)
    for mark in marks:
        x, y = (float(value) * scale for value in mark.location)
        for wide, color in ((radius + 1.5, (0, 0, 0)), (radius, class_color(mark.label))):
            pen.ellipse((x - wide, y - wide, x + wide, y + wide), fill=(*color, 255))
    for one in absent:
        _dashed(pen, _ordered(one.box, scale), class_color(one.label))
    for one in absent:
        _label(pen, one, scale, size, names)
    return np.asarray(page)


def _ordered(box: Sequence[float], scale: float) -> tuple[float, float, float, float]:
    (x0, x1), (y0, y1) = sorted((box[0], box[2])), sorted((box[1], box[3]))
    return x0 * scale, y0 * scale, x1 * scale, y1 * scale


def _dashed(pen: ImageDraw.ImageDraw, box: Sequence[float], color: tuple[int, int, int]) -> None:
    """A frame in dashes of a color, on a dark line."""
    x0, y0, x1, y1 = box
    pen.rectangle((x0, y0, x1, y1), outline=(0, 0, 0, 160), width=4)
    for (ax, ay), (bx, by) in (
        ((x0, y0), (x1, y0)), ((x1, y0), (x1, y1)), ((x1, y1), (x0, y1)), ((x0, y1), (x0, y0)),
    ):  # fmt: skip
        length = max(abs(bx - ax), abs(by - ay), 1e-6)
        for start in np.arange(0, length, 2 * _DASH):
            a, b = start / length, min(start + _DASH, length) / length
            line = (ax + (bx - ax) * a, ay + (by - ay) * a, ax + (bx - ax) * b, ay + (by - ay) * b)
            pen.line(line, fill=(*color, 255), width=3)


def _label(pen: ImageDraw.ImageDraw, one: Absent, scale: float, size: tuple[int, int], names: Sequence[str]) -> None:
    font, text = load_font(round(max(12.0, max(size) / 70))), f"missed {class_name(one.label, names)}: {one.cause}"
    width, height = text_length(text, font) + 10, font.size * 1.4
    x0, _, _, y1 = _ordered(one.box, scale)
    left, top = max(0.0, min(x0, size[0] - width)), max(0.0, min(y1 + 2, size[1] - height))
    pen.rectangle((left, top, left + width, top + height), fill=(20, 20, 20, 215))
    write(pen, (left + width / 2, top + height / 2), text, font, (255, 255, 255), "mm")
